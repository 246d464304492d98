use std::sync::Mutex;

use super::*;

impl Part for Vec<usize> {
    fn split(mut self) -> Vec<Self> {
        let rest = self.split_off(self.len() / 2);
        [self, rest].into_iter().filter(|part| !part.is_empty()).collect()
    }
}

/// A service that takes so much in each second.
#[derive(Debug)]
struct Service {
    budget: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    second: Instant,
    left: usize,
    under_way: usize,
    most_under_way: usize,
    refused: usize,
    made: Vec<usize>,
}

impl Service {
    fn new(budget: usize) -> Self {
        let second = Instant::now();
        let state = State { second, left: budget, under_way: 0, most_under_way: 0, refused: 0, made: Vec::new() };
        Self { budget, state: Mutex::new(state) }
    }

    async fn take(&self, part: &[usize]) -> Result<bool> {
        {
            let mut state = self.state.lock().unwrap();
            state.under_way += 1;
            state.most_under_way = state.most_under_way.max(state.under_way);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut state = self.state.lock().unwrap();
        state.under_way -= 1;
        if state.second.elapsed() >= Duration::from_secs(1) {
            (state.second, state.left) = (Instant::now(), self.budget);
        }
        if state.left < part.len() {
            state.refused += 1;
            let pause = Duration::from_secs(1).saturating_sub(state.second.elapsed());
            return Err(Error::retry("no more for now").not_before(pause));
        }
        state.left -= part.len();
        state.made.extend(part);
        Ok(true)
    }
}

async fn send(service: &Service, parts: Vec<Vec<usize>>) -> Result<()> {
    let request = |part: Vec<usize>| async move {
        let answer = service.take(&part).await;
        (part, answer)
    };
    Pace::new().run("x", parts, request).await
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_sent_again_and_nothing_else() {
    let (service, began) = (Service::new(100), Instant::now());
    send(&service, (0..200).map(|at| vec![at; 10]).collect()).await.unwrap();
    let mut state = service.state.into_inner().unwrap();
    state.made.sort_unstable();
    assert_eq!(state.made, (0..200).flat_map(|at| [at; 10]).collect::<Vec<_>>(), "each once");
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    assert!((1..250).contains(&state.refused), "{}", state.refused);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_larger_than_the_budget_is_sent_in_smaller_ones() {
    let service = Service::new(60);
    send(&service, vec![(0..100).collect(), (100..200).collect()]).await.unwrap();
    let mut made = service.state.into_inner().unwrap().made;
    made.sort_unstable();
    assert_eq!(made, (0..200).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_so_that_fewer_are_tried() {
    let (service, began) = (Service::new(10), Instant::now());
    let refused = send(&service, (0..1_000).map(|at| vec![at; 10]).collect()).await.unwrap_err();
    assert!(matches!(&refused, Error::TooLarge(_)) && refused.to_string().contains("no more for now"), "{refused:?}");
    assert!(refused.retry_after().is_some_and(|pause| pause <= Duration::from_secs(1)));
    assert!((28..=31).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn as_many_are_under_way_as_get_through() {
    let open = Service::new(usize::MAX);
    send(&open, (0..500).map(|at| vec![at]).collect()).await.unwrap();
    assert_eq!(open.state.into_inner().unwrap().most_under_way, AT_ONCE);
    let mut pace = Pace::new();
    (0..10).for_each(|round| pace.slow_down(round));
    assert_eq!(pace.window, 1);
    pace.slow_down(3);
    assert_eq!(pace.round, 10, "one of an earlier round has been counted");
    (0..1_000).for_each(|_| pace.speed_up());
    assert_eq!(pace.window, AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn what_the_service_has_no_time_for_is_sent_in_smaller_parts() {
    let made = Mutex::new(Vec::new());
    let slow = |most: usize| {
        let made = &made;
        move |part: Vec<usize>| async move {
            let is_made = part.len() <= most;
            if is_made {
                made.lock().unwrap().extend(part.clone());
            }
            (part, Ok(is_made))
        }
    };
    Pace::new().run("x", [(0..100).collect()], slow(7)).await.unwrap();
    let mut all = std::mem::take(&mut *made.lock().unwrap());
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    let late = Pace::new().run("x", [(0..100).collect()], slow(0)).await;
    assert!(
        matches!(&late, Err(Error::TooLarge(cause)) if cause.to_string().contains("outcome is unknown")),
        "{late:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn other_errors_end_it() {
    let request = |part: usize| async move { (part, Err(Error::stop("key"))) };
    assert!(matches!(Pace::new().run("x", [1, 2], request).await, Err(Error::Stop(_))));
    let tries = Mutex::new(0);
    let once = || async {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        if *tries < 3 { Err(Error::retry("no more").not_before(Duration::from_secs(1))) } else { Ok(*tries) }
    };
    assert_eq!(Pace::new().one(once).await.unwrap(), 3);
}
