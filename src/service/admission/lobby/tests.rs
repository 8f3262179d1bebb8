use super::*;
use proptest::prelude::*;
use std::time::Duration;

const TERMS: Terms = Terms { depth: 100, wait_ms: 60_000, keyed: false };

/// Somebody whom these endpoints suit.
fn comes(lobby: &Arc<Lobby>, endpoints: &'static [u32]) -> Waits {
    lobby.enter(Box::new(|id| endpoints.contains(&id)), Who::default(), TERMS, process_ms())
}

fn told(waits: &mut Waits) -> Option<Result<u32, Over>> {
    let told = waits.told.try_recv().ok()?;
    Some(told.map(|room| {
        let endpoint = room.endpoint;
        room.is_taken();
        endpoint
    }))
}

#[test]
fn an_endpoint_is_told_to_the_first_whom_it_suits() {
    let lobby = Arc::<Lobby>::default();
    let mut waiting = [comes(&lobby, &[1]), comes(&lobby, &[2]), comes(&lobby, &[1, 2])];
    lobby.has_room(3);
    assert_eq!((waiting.each_mut().map(told), lobby.waiting()), ([None; 3], 3));
    lobby.has_room(2);
    assert_eq!((waiting.each_mut().map(told), lobby.waiting()), ([None, Some(Ok(2)), None], 2));
    lobby.has_room(2);
    assert_eq!(waiting.each_mut().map(told), [None, None, Some(Ok(2))]);
    lobby.has_room(2);
    lobby.has_room(1);
    assert_eq!((told(&mut waiting[0]), lobby.waiting()), (Some(Ok(1)), 0));
}

#[test]
fn whoever_is_told_and_goes_away_tells_the_next_one() {
    let lobby = Arc::<Lobby>::default();
    let (first, mut next) = (comes(&lobby, &[1]), comes(&lobby, &[1]));
    lobby.has_room(1);
    assert_eq!(told(&mut next), None);
    drop(first);
    assert_eq!(told(&mut next), Some(Ok(1)));
    // Whoever has left before is told nothing.
    let (first, mut next) = (comes(&lobby, &[1]), comes(&lobby, &[1]));
    drop(first);
    assert_eq!(lobby.waiting(), 1);
    lobby.has_room(1);
    assert_eq!(told(&mut next), Some(Ok(1)));
    // In time, or not.
    let (first, next) = (comes(&lobby, &[1]), comes(&lobby, &[1]));
    lobby.has_room(1);
    assert!(first.ends().is_ok_and(|room| room.endpoint == 1), "told in time");
    assert!(next.ends().is_ok(), "dropped unused, it is the next one's");
    assert_eq!(comes(&lobby, &[1]).ends().unwrap_err(), Over::QueueTimeout);
    assert_eq!(lobby.waiting(), 0);
}

#[test]
fn no_more_wait_than_may_and_none_for_longer() {
    let lobby = Arc::<Lobby>::default();
    let enter =
        |now_ms| lobby.enter(Box::new(|_| true), Who::default(), Terms { depth: 2, wait_ms: 200, ..TERMS }, now_ms);
    let mut waiting = [enter(0), enter(0), enter(0)];
    assert_eq!((told(&mut waiting[2]), lobby.waiting()), (Some(Err(Over::QueueFull)), 2));
    lobby.tell(1, 200);
    assert_eq!([told(&mut waiting[0]), told(&mut waiting[1])], [Some(Err(Over::QueueTimeout)); 2]);
    assert_eq!(lobby.waiting(), 0);
}

/// One place that eight threads want, each again and again, as endpoints and requests do. Were one of them not told, it would
/// wait until its time is over.
#[test]
fn nobody_is_forgotten_by_threads_that_come_and_go_at_once() {
    let (lobby, busy) = (Arc::<Lobby>::default(), AtomicU32::new(0));
    let take = || busy.compare_exchange(0, 1, Relaxed, Relaxed).is_ok();
    let asks = |number: u32| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for turn in 0..200 {
            let mut taken = take();
            while !taken {
                let mut waits = comes(&lobby, &[1]);
                taken = take();
                if taken {
                    break;
                }
                // Somebody goes away at times, told or not.
                if (turn + number).is_multiple_of(7) {
                    continue;
                }
                let told =
                    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), waits.told()).await });
                let room = told.expect("it is told").unwrap();
                taken = take();
                room.is_taken();
            }
            std::thread::yield_now();
            busy.store(0, SeqCst);
            lobby.has_room(1);
        }
    };
    std::thread::scope(|scope| (0..8).for_each(|number| drop(scope.spawn(move || asks(number)))));
    assert_eq!(lobby.waiting(), 0);
}

proptest! {
    /// Steps: somebody comes whom one of three endpoints suits; one goes away; an endpoint has room.
    #[test]
    fn each_room_is_told_to_one_as_long_as_it_suits_anybody(steps in prop::collection::vec((0u8..3, 0usize..8), 1..60)) {
        let lobby = Arc::<Lobby>::default();
        let mut waiting: Vec<(u32, Waits)> = Vec::new();
        for (step, which) in steps {
            let endpoint = which as u32 % 3;
            match step {
                0 => {
                    let waits = lobby.enter(Box::new(move |id| id == endpoint), Who::default(), TERMS, process_ms());
                    waiting.push((endpoint, waits));
                }
                1 if !waiting.is_empty() => drop(waiting.remove(which % waiting.len())),
                1 => {}
                _ => {
                    let suits = waiting.iter().filter(|(wanted, _)| *wanted == endpoint).count();
                    lobby.has_room(endpoint);
                    let before = waiting.len();
                    waiting.retain_mut(|(wanted, waits)| match told(waits) {
                        Some(told) => {
                            assert_eq!(told, Ok(*wanted));
                            false
                        }
                        None => true,
                    });
                    prop_assert_eq!(before - waiting.len(), usize::from(suits > 0));
                }
            }
            prop_assert_eq!(lobby.waiting() as usize, waiting.len());
        }
    }
}
