//! The lists of checks. A check that is in none of them is dead code, which the compiler says.

use super::{
    DeadLettersCheck, LogCheck, SinkCheck, SourceCheck, letters, log, merge_adopted, merge_keys, merge_states,
    sink_fences, sink_owners, sink_rebuilds, sink_tables, sink_writes, source,
};

/// One test for each check of the [`Sink`](millstream_core::Sink) contract; an adapter that merges also runs
/// [`merging_sink_tests`](crate::merging_sink_tests). Takes an `async fn` and its arguments: the check follows them.
#[macro_export]
macro_rules! sink_tests {
    ($($around:tt)+) => {
        $crate::each_check! { [$($around)+] sink_checks
            sink_fences::{
                a_fence_is_none_until_it_is_created,
                first_writers_agree_on_the_fence,
                the_first_number_of_partitions_is_kept,
                all_of_a_fence_round_trips,
                fences_are_separate,
            }
            sink_writes::{
                a_write_moves_the_fence_and_shows_its_rows,
                a_write_without_rows_moves_the_fence,
                a_write_from_another_offset_is_fenced,
                one_of_two_writers_wins,
                a_zombie_changes_nothing,
                partitions_are_written_at_once,
                readers_see_one_instant,
            }
            sink_owners::{
                a_holding_says_what_is_there,
                a_table_has_one_owner,
                a_renewed_owner_keeps_its_term,
                a_write_of_an_ended_term_changes_nothing,
                an_adopted_table_goes_on_at_the_fences_of_before,
                a_first_owner_writes_at_fences_of_an_older_term,
                two_functions_with_fences_are_not_one,
            }
            sink_rebuilds::{
                a_rebuilt_table_takes_the_place,
                a_rebuilt_table_waits_until_it_is_not_behind,
                a_rebuilt_table_may_have_other_columns,
                readers_see_one_table_or_the_other,
                nothing_is_replaced_that_has_changed,
                a_discarded_rebuild_leaves_nothing,
            }
            sink_tables::{
                every_column_type_round_trips,
                prepare_may_be_called_again,
                a_missing_table_stops,
                other_columns_stop,
                what_keeps_a_table_from_being_adapted_is_told,
                names_that_need_quoting,
                an_unstorable_value_is_poison,
            }
        }
    };
}

/// One test for each further check of the [`Sink`](millstream_core::Sink) contract that an adapter with merging tables keeps.
#[macro_export]
macro_rules! merging_sink_tests {
    ($($around:tt)+) => {
        $crate::each_check! { [$($around)+] merging_sink_checks
            merge_states::{
                states_merge_across_writes,
                states_merge_within_one_write,
                doubles_at_their_edges_merge,
            }
            merge_keys::{
                null_keys_are_one_group,
                a_table_without_keys_is_one_row,
                a_sum_that_overflows_is_poison,
                rows_that_not_every_store_can_hold_are_poison,
                keys_of_two_partitions_merge,
                many_keys_in_one_write,
            }
            merge_adopted::{
                a_table_that_is_not_adopted_is_not_adapted,
                writers_of_the_old_plan_stop_where_the_new_one_begins,
            }
        }
    };
}

/// One test for each check of the [`Log`](millstream_core::Log), [`Producer`](millstream_core::Producer) and
/// [`Topics`](millstream_core::Topics) contracts.
#[macro_export]
macro_rules! log_tests {
    ($($around:tt)+) => {
        $crate::each_check! { [$($around)+] log_checks
            log::{
                a_topic_is_created_once,
                partitions_are_raised_and_never_lowered,
                a_missing_topic_stops,
                a_topic_has_an_id_of_its_own,
                an_empty_partition,
                all_of_a_record_round_trips,
                order_keys_and_positions,
                ranges,
                limits,
                large_values,
                the_first_record_since_a_time,
            }
        }
    };
}

/// One test for each check of the [`Source`](millstream_core::Source) contract that one member can show.
#[macro_export]
macro_rules! source_tests {
    ($($around:tt)+) => {
        $crate::each_check! { [$($around)+] source_checks
            source::{
                all_records_come_in_order_from_the_fence,
                the_fence_decides_and_not_the_commit,
                later_records_come,
                an_error_of_the_handler_ends_it,
            }
        }
    };
}

/// One test for each check of the [`DeadLetters`](millstream_core::DeadLetters) contract.
#[macro_export]
macro_rules! dead_letter_tests {
    ($($around:tt)+) => {
        $crate::each_check! { [$($around)+] dead_letter_checks
            letters::{
                all_of_a_letter_comes_back,
                a_letter_that_comes_twice_is_one,
                a_listing_is_of_the_newest,
                a_letter_is_found_by_its_position,
                letters_are_fetched_by_their_positions,
                large_letters_and_no_listing_without_end,
                every_position_is_visited,
                copies_stand_under_both_functions,
                a_removed_letter_is_gone_until_it_comes_again,
                older_letters_are_listed_when_newer_ones_were_removed,
            }
        }
    };
}

/// Makes of a suite either its list, for this file, or its tests, for an adapter.
#[doc(hidden)]
#[macro_export]
macro_rules! each_check {
    ([list] $suite:ident $($module:ident::{$($check:ident),+ $(,)?})+) => {
        vec![$($($crate::conformance::Check::new(stringify!($check), |it| Box::pin($module::$check(it))),)+)+]
    };
    ($around:tt $suite:ident $($module:ident::{$($check:ident),+ $(,)?})+) => {
        $($($crate::each_check! { @test $around $suite $check })+)+
    };
    (@test [$around:path $(, $argument:expr)*] $suite:ident $check:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            let check = $crate::conformance::find_check($crate::conformance::$suite(), stringify!($check));
            $around($($argument,)* check).await;
        }
    };
}

/// All checks of a sink.
pub fn sink_checks() -> Vec<SinkCheck> {
    crate::sink_tests!(list)
}

/// All further checks of a sink that merges.
pub fn merging_sink_checks() -> Vec<SinkCheck> {
    crate::merging_sink_tests!(list)
}

/// All checks of a log.
pub fn log_checks() -> Vec<LogCheck> {
    crate::log_tests!(list)
}

/// All checks of a source.
pub fn source_checks() -> Vec<SourceCheck> {
    crate::source_tests!(list)
}

/// All checks of a place for dead letters.
pub fn dead_letter_checks() -> Vec<DeadLettersCheck> {
    crate::dead_letter_tests!(list)
}
