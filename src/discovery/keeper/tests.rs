use super::*;
use crate::discovery::listing::Listing;
use tokio::sync::mpsc;

/// A conversation of these steps, which then begins anew.
#[derive(Debug)]
struct Scripted {
    steps: Mutex<std::collections::VecDeque<Step>>,
}

#[derive(Debug)]
enum Step {
    List(&'static [&'static str]),
    Whole,
    Partly(&'static str),
    Alive,
    Refuse,
    Doubt(u64),
    After(u64),
    Fail(Kind, &'static str),
}

impl Follow for Scripted {
    async fn follow(&self, services: &mut Keepers) -> Result<Infallible, Failure> {
        loop {
            let step = self.steps.lock().unwrap().pop_front();
            match step {
                None => std::future::pending().await,
                Some(Step::List(addresses)) => {
                    let mut listing = Listing::default();
                    addresses.iter().for_each(|address| listing.add_value(address.as_bytes(), b"", &[]));
                    services.offer("users", listing.observed("1")).await;
                }
                Some(Step::Whole) => services.whole().await,
                Some(Step::Partly(problem)) => services.partly(problem).await,
                Some(Step::Alive) => services.alive().await,
                Some(Step::Refuse) => services.refused("users", "not for you").await,
                Some(Step::Doubt(s)) => services.doubt_next(Duration::from_secs(s)),
                Some(Step::After(ms)) => sleep(Duration::from_millis(ms)).await,
                Some(Step::Fail(kind, problem)) => return Err(Failure::new(kind, problem)),
            }
        }
    }
}

fn lookup() -> Lookup {
    Lookup { service: "users".into(), registered_as: "users".to_owned(), tags: vec![], allow_empty: false }
}

/// What was reported, and how many milliseconds after the start.
async fn reported(steps: impl IntoIterator<Item = Step>, times: usize) -> Vec<(String, u128)> {
    let source = Followed::new(Scripted { steps: Mutex::new(steps.into_iter().collect()) }, Duration::from_secs(5));
    let (to, mut reports) = mpsc::channel(1);
    let watch = source.watch(vec![lookup()], Reports { source: "test".into(), to });
    let started = Instant::now();
    let mut seen = Vec::new();
    let all = async {
        while seen.len() < times {
            let (_, report) = reports.recv().await.unwrap();
            let told = match report {
                Report::Service(_, observed) => {
                    format!("{}{}", observed.endpoints.len(), if observed.held.is_some() { " held" } else { "" })
                }
                Report::All(_) => unreachable!(),
                Report::Confirmed => "confirmed".to_owned(),
                Report::Failed(service, problem) => format!("{}: {problem}", service.as_deref().unwrap_or("all")),
            };
            seen.push((told, started.elapsed().as_millis()));
        }
    };
    tokio::select! { () = watch => unreachable!(), () = all => {} }
    seen
}

fn told(seen: &[(String, u128)]) -> Vec<&str> {
    seen.iter().map(|(told, _)| told.as_str()).collect()
}

const FOUR: Step = Step::List(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3", "10.0.0.1:4"]);

#[tokio::test(start_paused = true)]
async fn who_is_away_is_asked_again_within_a_second_and_told_once() {
    let away = || Step::Fail(Kind::Unreachable, "refused");
    let mut steps = vec![FOUR, Step::Whole];
    steps.extend((0..50).map(|_| away()));
    steps.extend([FOUR, Step::Whole]);
    let seen = reported(steps, 3).await;
    assert_eq!(told(&seen), ["4", "all: refused", "4"]);
    // Fifty waits, each below a second.
    assert!((500..=50_000).contains(&seen[2].1), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_held_list_is_read_again_when_its_time_has_come() {
    let mut steps = vec![FOUR, Step::Whole, Step::List(&[]), Step::After(4_000), Step::List(&[]), Step::After(1_500)];
    steps.push(Step::List(&[]));
    let seen = reported(steps, 4).await;
    assert_eq!(told(&seen), ["4", "4 held", "4 held", "0"]);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_answers_confirms_once_a_second() {
    let mut steps = vec![Step::Alive, FOUR, Step::Whole];
    steps.extend((0..30).flat_map(|_| [Step::After(100), Step::Alive]));
    let seen = reported(steps, 4).await;
    assert_eq!(told(&seen), ["4", "confirmed", "confirmed", "confirmed"]);
    assert_eq!(seen.iter().map(|(_, at)| at / 100).collect::<Vec<_>>(), [0, 10, 20, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_missing_is_told_once_until_all_is_whole() {
    let steps = [FOUR, Step::Partly("b is gone"), FOUR, Step::Partly("b is gone"), FOUR, Step::Whole, FOUR];
    let seen = reported(steps.into_iter().chain([Step::Partly("b is gone")]), 6).await;
    assert_eq!(told(&seen), ["4", "all: b is gone", "4", "4", "4", "all: b is gone"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_bad_entries_takes_nothing_and_is_told() {
    let steps = [FOUR, Step::Whole, Step::List(&["nowhere"]), Step::List(&["nowhere"]), FOUR];
    let seen = reported(steps, 4).await;
    assert_eq!(
        seen[2].0,
        "users: none of the 1 entries can be used; the first, nowhere: `nowhere` is not IP:PORT, like \
                           `10.0.0.7:8080` or `[::1]:8080`"
    );
    assert_eq!((seen[1].0.as_str(), seen[3].0.as_str()), ("4 held", "4"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_ends_a_doubt() {
    let (to, _reports) = mpsc::channel(8);
    let mut keeper =
        Keeper::new(lookup(), &Known::default(), Duration::from_secs(5), Reports { source: "test".into(), to });
    for (addresses, held) in [(["10.0.0.1:1"].as_slice(), false), (&[], true), (&["nowhere"], false), (&[], true)] {
        let mut listing = Listing::default();
        addresses.iter().for_each(|address| listing.add_value(address.as_bytes(), b"", &[]));
        keeper.offer(listing.observed("1")).await;
        assert_eq!(keeper.confirm_at().is_some(), held, "{addresses:?}");
    }
}

#[test]
fn all_is_read_again_after_a_quiet_time() {
    const QUIET: Duration = Duration::from_secs(300);
    for seed in 0..50 {
        let (to, _) = mpsc::channel(8);
        let reports = Reports { source: "test".into(), to };
        let (whole, confirmed, failed) = (None, None, None);
        let chance = Chance(seed);
        let mut keepers = Keepers {
            keepers: BTreeMap::new(),
            held: BTreeMap::new(),
            reports,
            whole,
            quiet: QUIET,
            again: Instant::now(),
            confirmed,
            failed,
            chance,
        };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(keepers.whole());
        let wait = keepers.again().duration_since(Instant::now());
        assert!((QUIET - Duration::from_secs(1)..=QUIET * 6 / 5).contains(&wait), "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_told_once_and_not_confirmed() {
    let later = || Step::After(2_000);
    let steps =
        [FOUR, Step::Whole, Step::Refuse, later(), Step::Alive, Step::Refuse, Step::Whole, FOUR, later(), Step::Alive];
    assert_eq!(told(&reported(steps, 4).await), ["4", "users: not for you", "4", "confirmed"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_first_list_takes_away_can_be_held_longer() {
    let none = || Step::List(&[]);
    let steps = [
        FOUR,
        Step::Whole,
        Step::Doubt(30),
        none(),
        // More is there again, and goes again: that is no reason to believe it sooner.
        Step::List(&["10.0.0.1:1"]),
        none(),
        Step::After(10_000),
        none(),
        Step::After(20_000),
        none(),
        FOUR,
        none(),
        Step::After(5_000),
        none(),
    ];
    let seen = reported(steps, 9).await;
    assert_eq!(told(&seen), ["4", "4 held", "4 held", "4 held", "4 held", "0", "4", "4 held", "0"]);
}
