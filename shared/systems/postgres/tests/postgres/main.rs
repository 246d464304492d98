//! The sink on a real PostgreSQL, and the same through PgBouncer in transaction mode. Every test has databases of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod concurrency;
mod conformance;
mod faults;
mod lookups;
mod neighbours;
mod rebuilds;
mod support;
mod tables;
mod tls;
mod values;
mod widths;

/// Each test twice: straight to the server, and through PgBouncer.
macro_rules! on_both_ways {
    ($($module:ident::$test:ident),* $(,)?) => {
        mod direct {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::$module::$test(crate::support::Way::Direct).await;
            })*
        }
        mod pgbouncer {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::$module::$test(crate::support::Way::PgBouncer).await;
            })*
        }
    };
}

on_both_ways! {
    concurrency::partitions_with_the_same_keys_never_deadlock,
    concurrency::sketches_of_two_partitions_merge,
    concurrency::a_zombie_waits_for_the_lock_and_inserts_nothing,
    concurrency::instances_that_start_at_once_create_one_table,
    faults::a_terminated_write_changed_nothing,
    faults::a_lost_answer_is_cleared_up_by_the_fence,
    faults::a_connection_lost_while_idle_is_replaced,
    faults::a_write_whose_time_is_up_twice_is_too_large,
    faults::a_failed_authentication_says_what_to_check,
    neighbours::nothing_is_removed_that_no_rebuild_has_made,
    neighbours::what_a_rebuild_has_made_is_removed,
    neighbours::a_table_with_the_name_of_the_states_is_left_alone_or_named,
    neighbours::states_without_their_view_are_replaced,
    neighbours::states_of_a_version_without_owners_are_replaced,
    neighbours::who_wrote_to_the_states_writes_to_the_results,
    neighbours::only_the_index_of_the_keys_goes_without_a_word,
    neighbours::only_checks_of_millstream_go_without_a_word,
    rebuilds::results_keep_what_is_on_them,
    rebuilds::states_keep_what_is_on_them,
    rebuilds::results_become_states,
    rebuilds::states_become_results,
    rebuilds::indexes_are_on_the_new_table_too,
    rebuilds::what_cannot_be_kept_is_named,
    rebuilds::a_view_that_no_longer_fits_is_named,
    rebuilds::a_table_of_somebody_else_is_left_alone,
    rebuilds::a_table_in_another_schema_is_told,
    rebuilds::a_long_reader_makes_the_step_give_up,
    rebuilds::writers_wait_while_the_new_table_catches_up,
    tables::a_table_that_does_not_fit_is_described,
    tables::fences_from_before_topic_ids_get_their_column,
    tables::a_change_of_a_table_does_not_queue_up_behind_a_long_reader,
    tables::a_view_follows_its_statement,
    tables::a_table_is_adapted_to_another_plan,
    tables::results_do_not_become_states,
    tables::what_would_refuse_the_rows_of_another_plan_is_found,
    tables::sessions_join_in_a_view,
    tables::the_newest_rows_are_those_of_the_latest_window,
    tables::a_view_of_somebody_else_is_left_alone,
    lookups::references_are_asked_by_key,
    tables::references_are_read,
    widths::columns_get_wider_types,
    widths::a_view_is_made_again_over_wider_types,
    widths::a_view_of_somebody_else_stays_over_narrow_types,
    widths::narrower_types_are_refused,
    widths::nothing_is_rewritten_for_another_owner_than_the_judged_one,
    values::unusual_types_come_back_as_they_went,
    values::what_has_no_place_is_poison,
    values::keys_that_are_the_same_only_to_postgres_merge_in_writes_of_their_own,
}
