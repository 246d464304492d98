use std::time::Duration;

/// How many times a table tries to take its place. Each time, what came meanwhile is read first.
pub(super) const MAX_TRIES: u32 = 100;

/// A try that takes longer has kept writers waiting, and how many of these are made.
const SLOW: Duration = Duration::from_secs(8);
const MAX_SLOW: u32 = 4;

/// The tries of a table that was behind each time.
#[derive(Default)]
pub(super) struct Tries {
    made: u32,
    slow: u32,
}

/// Why there is no further try.
#[derive(Debug, PartialEq)]
pub(super) enum GaveUp {
    /// Writers have waited long, and in vain, too often.
    TooSlow,
    /// The old table is ahead after each of [`MAX_TRIES`].
    Outrun,
}

impl Tries {
    /// After a try that took so long: waits before the next one, as long as writers had to.
    pub(super) async fn again(&mut self, took: Duration) -> Result<(), GaveUp> {
        self.made += 1;
        if took > SLOW {
            if self.slow == MAX_SLOW {
                return Err(GaveUp::TooSlow);
            }
            self.slow += 1;
            tokio::time::sleep(took).await;
        }
        if self.made < MAX_TRIES { Ok(()) } else { Err(GaveUp::Outrun) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn writers_that_have_waited_long_get_as_much_time() {
        let (began, took) = (Instant::now(), SLOW + Duration::from_secs(1));
        let mut tries = Tries::default();
        for number in 1..=MAX_SLOW {
            assert_eq!(tries.again(took).await, Ok(()));
            assert_eq!(began.elapsed().as_secs(), (took * number).as_secs(), "it waits");
            assert_eq!(tries.again(SLOW).await, Ok(()));
            assert_eq!(began.elapsed().as_secs(), (took * number).as_secs(), "nobody has waited long");
        }
        assert_eq!(tries.again(took).await, Err(GaveUp::TooSlow));
        assert_eq!(began.elapsed().as_secs(), (took * MAX_SLOW).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_is_outrun_gives_up() {
        let mut tries = Tries::default();
        for _ in 1..MAX_TRIES {
            assert_eq!(tries.again(Duration::ZERO).await, Ok(()));
        }
        assert_eq!(tries.again(Duration::ZERO).await, Err(GaveUp::Outrun));
    }
}
