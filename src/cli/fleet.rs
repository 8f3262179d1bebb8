//! `wayside fleet`: do several gateways know the same?

use super::{out, running};
use crate::admin::api::{Parts, Published};
use crate::discovery::registry::body::read;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// For one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// No answer is larger, bytes.
const LARGEST: usize = 64 << 20;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// So many differences are shown.
const SHOWN: usize = 50;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Admin addresses of the gateways, like http://127.0.0.1:9901.
    #[arg(required = true)]
    urls: Vec<String>,
    /// Ask again until they agree, for so long at most: a change reaches each of them at its own time.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    within: Duration,
}

/// Asks all of them, and says who differs in what.
///
/// # Errors
/// They differ, or one does not answer.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let http = running::client(ANSWER)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = Instant::now();
    loop {
        let answers: Vec<(&str, anyhow::Result<Published>)> = runtime.block_on(ask_all(&http, &args.urls));
        let differences = differences(&answers);
        if differences.is_empty() || started.elapsed() >= args.within {
            return tell(&answers, &differences);
        }
        std::thread::sleep(LOOK);
    }
}

async fn ask_all<'a>(http: &reqwest::Client, urls: &'a [String]) -> Vec<(&'a str, anyhow::Result<Published>)> {
    let mut asked = tokio::task::JoinSet::new();
    for (place, url) in urls.iter().enumerate() {
        let (http, url) = (http.clone(), url.clone());
        asked.spawn(async move { (place, ask(&http, &url).await) });
    }
    let mut answers: Vec<_> = urls.iter().map(|url| (url.as_str(), Err(anyhow::anyhow!("was not asked")))).collect();
    let mut done = 0;
    while let Some(answer) = asked.join_next().await {
        done += 1;
        let all = urls.len();
        out::progress(format_args!("{done} of {all} gateways have answered"), done == all);
        if let Ok((place, answer)) = answer
            && let Some((_, before)) = answers.get_mut(place)
        {
            *before = answer;
        }
    }
    answers
}

async fn ask(http: &reqwest::Client, url: &str) -> anyhow::Result<Published> {
    let mut response = http.get(running::url(url, "/snapshot")).send().await.context("no answer")?;
    let status = response.status();
    if !status.is_success() {
        bail!("answered {status}");
    }
    let (body, whole) = read(&mut response, LARGEST).await.context("no whole answer")?;
    if !whole {
        bail!("no whole answer: the answer is larger than {LARGEST} bytes");
    }
    serde_json::from_slice(&body).context("is no gateway's admin address, or an older gateway's")
}

/// What is not the same everywhere: what it is, and what each of those who answered says.
fn differences(answers: &[(&str, anyhow::Result<Published>)]) -> BTreeMap<String, Vec<String>> {
    let parts: Vec<&Parts> = answers.iter().filter_map(|(_, answer)| Some(&answer.as_ref().ok()?.parts)).collect();
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut note = |what: String, each: &dyn Fn(&Parts) -> Option<String>| {
        let said: Vec<String> =
            parts.iter().map(|parts| each(parts).unwrap_or_else(|| "not there".to_owned())).collect();
        if said.windows(2).any(|pair| pair[0] != pair[1]) {
            seen.insert(what, said);
        }
    };
    note("configuration".to_owned(), &|parts| Some(parts.configuration.clone()));
    for name in parts.iter().flat_map(|parts| parts.services.keys()) {
        note(format!("service {name}"), &|parts| parts.services.get(name).cloned());
    }
    for name in parts.iter().flat_map(|parts| parts.policies.keys()) {
        note(format!("policy {name}"), &|parts| parts.policies.get(name).cloned());
    }
    seen
}

fn tell(
    answers: &[(&str, anyhow::Result<Published>)],
    differences: &BTreeMap<String, Vec<String>>,
) -> anyhow::Result<()> {
    let mut silent = 0;
    for (url, answer) in answers {
        match answer {
            Ok(published) => out::say(format_args!("{url}: digest {}", published.digest)),
            Err(problem) => {
                silent += 1;
                out::complain(format_args!("{url}: {problem:#}"));
            }
        }
    }
    let answered: Vec<&str> = answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(url, _)| *url).collect();
    for (what, said) in differences.iter().take(SHOWN) {
        out::say(format_args!("{what} differs:"));
        for (url, said) in answered.iter().zip(said) {
            out::say(format_args!("  {url}: {said}"));
        }
    }
    if differences.len() > SHOWN {
        out::say(format_args!("and {} more", differences.len() - SHOWN));
    }
    match (silent, differences.len()) {
        (0, 0) => out::say(format_args!("all {} know the same", answers.len())),
        (0, count) => bail!("they differ in {count} things"),
        (silent, _) => bail!("{silent} of {} gateways did not answer", answers.len()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_differs_in_what_is_named() {
        let published = |configuration: &str, users: Option<&str>| {
            let services = users.map(|users| ("users".to_owned(), users.to_owned())).into_iter().collect();
            let parts = Parts { configuration: configuration.to_owned(), services, ..Parts::default() };
            Ok(Published { generation: 1, digest: String::new(), parts, config_error: None })
        };
        let same = [("a", published("1", Some("x"))), ("b", published("1", Some("x")))];
        assert!(differences(&same).is_empty());
        let unlike =
            [("a", published("1", Some("x"))), ("b", published("1", None)), ("c", Err(anyhow::anyhow!("gone")))];
        let seen = differences(&unlike);
        assert_eq!(
            seen.into_iter().collect::<Vec<_>>(),
            [("service users".to_owned(), vec!["x".to_owned(), "not there".to_owned()])]
        );
    }
}
