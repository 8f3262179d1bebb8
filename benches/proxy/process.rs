//! The programs that are measured, each a process of its own, so that the kernel tells what it costs.

use crate::load::{self, Protocol};
use anyhow::{Context as _, bail, ensure};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A process that says `ready` and where it listens; it ends with this.
pub struct Process {
    child: Child,
    pub addresses: Vec<SocketAddr>,
    /// Its standard output stays open, or its next line would end it.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Process {
    /// Starts it and waits for its ready line.
    ///
    /// # Errors
    /// It did not start; what it printed on standard error says why.
    pub fn start(program: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).env("RUST_LOG", "warn");
        let mut child = command.spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        if !line.starts_with("ready ") {
            let _ = child.kill();
            bail!("{} {}: {}", program.display(), arguments.join(" "), child.wait()?);
        }
        let urls = line.split_whitespace().filter_map(|word| Some(word.split_once("://")?.1));
        let addresses = urls.map(str::parse).collect::<Result<_, _>>()?;
        Ok(Process { child, addresses, _stdout: stdout })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as an administrator would, and waits for it.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn end(mut self) -> anyhow::Result<()> {
        let told = Command::new("kill").arg(self.id().to_string()).status()?;
        ensure!(told.success(), "cannot end process {}", self.id());
        self.child.wait()?;
        Ok(())
    }

    /// A program that says nothing, once it listens there.
    ///
    /// # Errors
    /// It cannot be started, or ends.
    pub fn start_silent(program: &Path, arguments: &[String], address: SocketAddr) -> anyhow::Result<Self> {
        let mut child = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(child.try_wait()?.is_none(), "{} ended", program.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Process { child, addresses: vec![address], _stdout: stdout })
    }

    /// Memory that it occupies, KiB.
    ///
    /// # Errors
    /// This is not Linux.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).context("this needs Linux")?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS in /proc/PID/status")?.trim().parse()?)
    }

    /// CPU time of all its threads so far, in user and in system mode, to 10 ms.
    fn cpu(&self) -> anyhow::Result<[Duration; 2]> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).context("this needs Linux")?;
        // The second field, the name, may hold spaces; the 14th and 15th are time in user and in system mode.
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: Vec<u64> = after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        ensure!(ticks.len() == 2, "/proc/PID/stat is not as expected: {stat}");
        // A tick of this interface is 10 ms, whatever the kernel's own is.
        Ok([Duration::from_millis(10 * ticks[0]), Duration::from_millis(10 * ticks[1])])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A row of the table.
pub struct Subject<'a> {
    pub name: &'static str,
    pub process: &'a Process,
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// Whom its clients trust.
    pub tls: Arc<rustls::ClientConfig>,
    /// What it is compared with: the subjects of these names.
    pub baselines: &'static [&'static str],
    /// CPU time for each request of each run, in µs.
    pub costs: Vec<f64>,
}

/// All rows.
pub struct Rows<'a> {
    tls: &'a Arc<rustls::ClientConfig>,
    pub rows: Vec<Subject<'a>>,
}

impl<'a> Rows<'a> {
    /// Without any; `tls`: whom the clients trust.
    pub fn new(tls: &'a Arc<rustls::ClientConfig>) -> Self {
        Rows { tls, rows: Vec::new() }
    }

    /// Adds one, of which nothing was measured yet; `port`: which of those that the program listens on.
    pub fn row(
        &mut self,
        name: &'static str,
        process: &'a Process,
        port: usize,
        protocol: Protocol,
        baselines: &'static [&'static str],
    ) {
        let (address, tls) = (process.addresses[port], Arc::clone(self.tls));
        self.rows.push(Subject { name, process, address, protocol, tls, baselines, costs: Vec::new() });
    }
}

impl Subject<'_> {
    /// One run, printed. Gives the number of failed requests.
    ///
    /// # Errors
    /// It could not be measured.
    pub async fn run(&mut self, clients: usize, requests: usize) -> anyhow::Result<usize> {
        // A handshake costs as much as many requests, and each connection takes a port for a minute.
        let requests = match self.protocol {
            Protocol::Handshakes => requests / 50,
            Protocol::Fresh => requests / 20,
            Protocol::Http1(load::LARGE) => requests / 5,
            _ => requests,
        };
        let before = self.process.cpu()?;
        let seen = load::send(self.address, self.protocol, &self.tls, clients, requests).await.context(self.name)?;
        let after = self.process.cpu()?;
        let cost = |mode: usize| after[mode].saturating_sub(before[mode]).as_secs_f64() * 1e6 / requests as f64;
        let (user, system) = (cost(0), cost(1));
        self.costs.push(user + system);
        println!(
            "{:<28} {requests:>8} {:>6} {:>11.2} {user:>7.2} {system:>7.2} {:>9.0} {:>7} {:>7}",
            self.name,
            seen.failed,
            user + system,
            requests as f64 / seen.took.as_secs_f64(),
            seen.quantile(0.5).as_micros(),
            seen.quantile(0.99).as_micros()
        );
        Ok(seen.failed)
    }

    /// Its costs as multiples of the baseline's in the same round, in order of size.
    pub fn ratios(&self, baseline: &Subject<'_>) -> Vec<f64> {
        let mut ratios: Vec<f64> = self.costs.iter().zip(&baseline.costs).map(|(own, bare)| own / bare).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}
