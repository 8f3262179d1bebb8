//! `wayside replay`: recorded decisions made once more, offline: by the version that made them, which must come to the same,
//! bit for bit, or by another one, to see what it would change.

mod again;
mod book;
mod case;
mod done;
mod report;
mod run;
mod versions;

use super::out;
use crate::telemetry::recording::EXTENSION;
use crate::telemetry::recording::reader::{Frame, Reader};
use anyhow::{Context, bail};
use book::Book;
use report::Report;
use run::Job;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::SyncSender;
use std::time::Instant;
use versions::{Library, Other};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wayside replay .wayside/records                      the same versions come to the same decisions
  wayside replay out.wsr --policy new/tenant.wasm      what this version would decide otherwise
  wayside replay out.wsr --as-case 1234                a recorded decision as a case for tests

The last line counts the decisions: `changed` came out otherwise; `hidden` hang on what is not in the record; `unknown` read
what was not read then; `environment` were made by the machine (a deadline, no memory); `not_run` have no component here;
`memory` came out otherwise only on an instance that had been asked before. Exit code 1: some changed.")]
pub(super) struct Args {
    /// Record files, or folders with some.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Ask this component instead of the version that decided. Its file's name says whose place it takes.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// What it is configured with, instead of what stands in the NAME.toml beside it, else in the record.
    #[arg(long, value_name = "TEXT", requires = "policy")]
    config: Option<String>,
    /// Where the recorded versions' components are: looked for by their content, in all that is in there.
    #[arg(long, value_name = "DIR", default_values = ["policies", ".wayside/policy-cache"])]
    policies: Vec<PathBuf>,
    /// Threads; default: one per core.
    #[arg(long)]
    threads: Option<usize>,
    /// A JSON object a line: each difference, then the counts.
    #[arg(long)]
    json: bool,
    /// Show the decisions of the record with this number as a case, and run nothing.
    #[arg(long, value_name = "N", conflicts_with_all = ["policy", "json"])]
    as_case: Option<u64>,
}

/// Replays the files.
///
/// # Errors
/// They cannot be read, or nothing in them can be replayed.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let files = files(&args.files)?;
    if let Some(number) = args.as_case {
        return case::show(&files, number).map(|()| ExitCode::SUCCESS);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or(cores).clamp(1, 256);
    let other = args.policy.as_deref().map(|file| Other::read(file, args.config.as_deref())).transpose()?;
    let library = Library::new(&args.policies, other, threads)?;
    let began = Instant::now();
    let bytes: u64 = files.iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
    let mut report = Report::new(args.json, bytes);
    run::all(threads, &library, |jobs| read(&files, jobs), &mut report)?;
    report.end(began.elapsed(), threads, &library);
    if report.counts.replayed == 0 {
        bail!("nothing was replayed; --policies names where the components are");
    }
    let failed = report.counts.changed > 0 || (library.is_same() && report.counts.unknown > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Hands all blocks of all files over, in their order.
fn read(files: &[PathBuf], jobs: &SyncSender<Job>) -> anyhow::Result<u64> {
    let (mut place, mut first, mut before) = (0, 1, 0);
    for file in files {
        let mut book = Book::default();
        let (mut reader, bytes) = open(file)?;
        while let Some(frame) = reader.frame().with_context(|| file.display().to_string())? {
            let Frame::Entries(entries) = frame else {
                book.note(frame);
                continue;
            };
            let (count, read) = (u64::from(entries.count), before + reader.position);
            if jobs.send(Job { place, first, pages: book.pages(), entries, read }).is_err() {
                return Ok(first);
            }
            (place, first) = (place + 1, first + count);
        }
        before += bytes;
        if reader.passed_over > 0 {
            out::complain(format_args!(
                "{}: {} bytes are damaged, and were passed over",
                file.display(),
                reader.passed_over
            ));
        }
        if !book.is_opened() {
            out::complain(format_args!("{}: has no beginning, so nothing in it can be replayed", file.display()));
        }
        for lost in book.lost() {
            out::complain(format_args!("{}: {} requests are missing: {}", file.display(), lost.count, lost.why));
        }
    }
    Ok(first)
}

/// A reader of this file, and how long that is.
fn open(file: &Path) -> anyhow::Result<(Reader<File>, u64)> {
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    let meta = opened.metadata().with_context(|| file.display().to_string())?;
    if !meta.is_file() {
        bail!("{}: is no file", file.display());
    }
    Ok((Reader::new(opened), meta.len()))
}

/// Record files, and those in folders, oldest first.
fn files(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        let meta = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        if !meta.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
        let ours = |path: &PathBuf| path.extension().is_some_and(|end| end == EXTENSION);
        let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(ours).collect();
        inside.sort();
        files.append(&mut inside);
    }
    if files.is_empty() {
        bail!("there is no record file (*.{EXTENSION}) in there");
    }
    Ok(files)
}
