//! A source under watch: its reports in order, with a bound on every wait.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "for tests, each of which uses some of it"
)]

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wayside::discovery::{Lookup, Observed, Report, Reports, Source, SourceSettings};

/// A watch that ends with this value.
#[derive(Debug)]
pub struct Watched {
    reports: mpsc::Receiver<(Arc<str>, Report)>,
    task: tokio::task::JoinHandle<()>,
    /// The fewest endpoints of any report since the first.
    pub fewest: Option<usize>,
    /// All problems that were told.
    pub problems: Vec<String>,
}

/// A lookup of a service by its own name.
pub fn lookup(service: &str) -> Lookup {
    Lookup { service: service.into(), registered_as: service.to_owned(), tags: vec![], allow_empty: false }
}

/// The source of a `[sources.NAME]` table.
pub fn source(table: &str) -> Arc<dyn Source> {
    let table = toml::from_str(table).unwrap();
    SourceSettings::parse(table, std::path::Path::new("/")).unwrap().build().unwrap()
}

impl Watched {
    /// Starts the source of a `[sources.NAME]` table, looking for these.
    pub fn start(table: &str, lookups: Vec<Lookup>) -> Self {
        Self::over(&*source(table), lookups)
    }

    /// Starts another watch of a source.
    pub fn over(source: &dyn Source, lookups: Vec<Lookup>) -> Self {
        let (to, reports) = mpsc::channel(64);
        let watch = source.watch(lookups, Reports { source: "test".into(), to });
        Watched { reports, task: tokio::spawn(watch), fewest: None, problems: vec![] }
    }

    /// The next report but those that only confirm.
    async fn report(&mut self, within: Duration) -> Report {
        let all = async {
            loop {
                match self.reports.recv().await.unwrap().1 {
                    Report::Confirmed => {}
                    report => return report,
                }
            }
        };
        let report = tokio::time::timeout(within, all).await;
        report.unwrap_or_else(|_| panic!("no report within {within:?}; problems: {:?}", self.problems))
    }

    /// The next report. Err: its problem.
    pub async fn next(&mut self, within: Duration) -> Result<Observed, String> {
        match self.report(within).await {
            Report::Service(_, observed) => {
                let count = observed.endpoints.len();
                self.fewest = Some(self.fewest.map_or(count, |fewest| fewest.min(count)));
                Ok(observed)
            }
            Report::All(_) | Report::Confirmed => panic!("a report about one service was expected"),
            Report::Failed(_, problem) => {
                self.problems.push(problem.clone());
                Err(problem)
            }
        }
    }

    /// The next report of any service, problems noted.
    pub async fn any(&mut self, within: Duration) -> (Arc<str>, Observed) {
        loop {
            match self.report(within).await {
                Report::Service(service, observed) => return (service, observed),
                Report::All(_) | Report::Confirmed => panic!("a report about one service was expected"),
                Report::Failed(_, problem) => self.problems.push(problem),
            }
        }
    }

    /// The first report that fits, which has to come within this time; problems in between are noted.
    pub async fn until(&mut self, within: Duration, fits: impl Fn(&Observed) -> bool) -> Observed {
        let all = async {
            loop {
                match self.next(within).await {
                    Ok(observed) if fits(&observed) => return observed,
                    _ => {}
                }
            }
        };
        let found = tokio::time::timeout(within, all).await;
        found.unwrap_or_else(|_| panic!("no such report within {within:?}; problems: {:?}", self.problems))
    }

    /// The first problem that is told, within this time.
    pub async fn problem(&mut self, within: Duration) -> String {
        let all = async {
            loop {
                if let Err(problem) = self.next(within).await {
                    return problem;
                }
            }
        };
        tokio::time::timeout(within, all).await.unwrap_or_else(|_| panic!("no problem was told within {within:?}"))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}
