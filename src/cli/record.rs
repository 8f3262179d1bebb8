//! `wayside record`: the decisions of a running gateway for a while, in a file that `wayside replay` reads.

use super::out;
use super::running::{self, Place, Proof};
use crate::admin::api::{RECORD_MORE, RECORD_PROBLEM, RecordWanted, Recorded};
use crate::base::secret::Secret;
use anyhow::{Context, bail};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// For one answer.
const ANSWER: Duration = Duration::from_secs(20);
/// Between two looks while nothing new has come.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wayside record --for 60s --out out.wsr        (then: wayside replay out.wsr)
  wayside record --for 10m --sample 0.01 --out out.wsr

What `record.redact` names is taken out before anything is written. Ctrl-C ends it; what has come until then is in the file.")]
pub(super) struct Args {
    /// How long, an hour at most.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Share of the requests, of those about which a policy is asked.
    #[arg(long, default_value_t = 1.0)]
    sample: f64,
    /// The file, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    proof: Proof,
}

/// Records.
///
/// # Errors
/// What went wrong; what came until then is in the file.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let secret = args.proof.secret()?;
    // It holds what clients have sent.
    let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.out);
    let mut to = to.with_context(|| format!("--out {}", args.out.display()))?;
    let gateway = Gateway { http: running::client(ANSWER)?, url: args.place.url("/record"), secret };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bytes = runtime.block_on(gateway.record(args, &mut to))?;
    out::say(format_args!("{}: {bytes} bytes", args.out.display()));
    out::say(format_args!("next: wayside replay {}", args.out.display()));
    Ok(())
}

struct Gateway {
    http: reqwest::Client,
    url: String,
    secret: Secret,
}

impl Gateway {
    async fn record(&self, args: &Args, to: &mut File) -> anyhow::Result<u64> {
        let time_ms = u64::try_from(args.time.as_millis()).unwrap_or(u64::MAX);
        let wanted = RecordWanted { sample: args.sample, time_ms };
        let begun = self.answer(self.http.post(&self.url).json(&wanted)).await?;
        let Recorded { record } = running::parse(&running::body(&self.url, begun).await?)?;
        let one = format!("{}/{record}", self.url);
        let fetched = tokio::select! {
            fetched = self.fetch(&one, args, to) => fetched,
            _ = tokio::signal::ctrl_c() => Ok(to.metadata().map_or(0, |meta| meta.len())),
        };
        // It would go by itself, but later.
        let _ = self.answer(self.http.delete(&one)).await;
        fetched
    }

    async fn fetch(&self, one: &str, args: &Args, to: &mut File) -> anyhow::Result<u64> {
        let (began, mut from) = (Instant::now(), 0);
        loop {
            let part = self.answer(self.http.get(format!("{one}/{from}"))).await?;
            let said = |name: &str| part.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let (more, problem) = (said(RECORD_MORE), said(RECORD_PROBLEM));
            let bytes = running::body(one, part).await?;
            to.write_all(&bytes).with_context(|| format!("--out {}", args.out.display()))?;
            from += bytes.len() as u64;
            let (now, all) = (began.elapsed().min(args.time).as_secs(), args.time.as_secs());
            let last = more.as_deref() == Some("false");
            out::progress(format_args!("{now} of {all} s, {} KiB", from >> 10), last);
            if last {
                match problem.filter(|problem| !problem.is_empty()) {
                    Some(problem) => bail!("the gateway has ended it: {problem}"),
                    None => return Ok(from),
                }
            }
            if bytes.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
        running::good(&self.url, request.bearer_auth(self.secret.expose())).await
    }
}
