//! `wayside register`: runs a service, and keeps it in a registry while it serves.

use super::credentials::Credentials;
use super::out;
use crate::discovery::Metadata;
use crate::discovery::registration::{Instance, Place, Registration};
use anyhow::{Context, bail};
use rustix::process::Pid;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

/// Between two looks whether the service answers, and for each.
const LOOK: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wayside register --registry consul://127.0.0.1:8500 --service users --address 127.0.0.1:8080 -- ./users
  wayside register --registry etcd://10.0.0.2:2379,10.0.0.3:2379/services/ --service users --address auto:8080 \\
      --weight 2 --meta zone=a --drain 5s -- ./users --port 8080

The service is registered once it answers. On SIGTERM or SIGINT it is marked as draining, waited for (--drain), told to end
by the same signal, and taken out when it has ended; the exit code is the service's. Killed by force, it goes after its TTL.")]
pub(super) struct Args {
    /// Where to register, like consul://127.0.0.1:8500 or etcd://127.0.0.1:2379/services/
    #[arg(long)]
    registry: Place,
    /// The service that this is an instance of.
    #[arg(long)]
    service: String,
    /// Where it listens, as others reach it; `auto:PORT` takes the address of this machine that faces the registry.
    #[arg(long)]
    address: String,
    /// What the registry calls this instance. Default: the service with the address.
    #[arg(long)]
    id: Option<String>,
    /// Share of traffic.
    #[arg(long, default_value_t = 1)]
    weight: u32,
    /// What is said of it, again and again: KEY=VALUE.
    #[arg(long = "meta", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// A tag, again and again.
    #[arg(long = "tag")]
    tags: Vec<String>,
    /// It serves when a GET of this path is answered with 2xx; without it, when it takes connections.
    #[arg(long)]
    health: Option<String>,
    /// How long it stays registered when this process is gone; kept every third of it.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// How long to wait between marking it as draining and telling it to end.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    drain: Duration,
    #[command(flatten)]
    credentials: Credentials,
    /// The service and its arguments; none: something else runs it.
    #[arg(last = true)]
    command: Vec<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs it until it ends.
///
/// # Errors
/// It cannot be run or registered as asked.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args))
}

/// Signals that end it, and those that are only passed on.
struct Signals {
    ending: [Signal; 3],
    passing: [Signal; 3],
}

const ENDING: [SignalKind; 3] = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()];
const PASSING: [SignalKind; 3] = [SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2()];

impl Signals {
    fn heard() -> std::io::Result<Self> {
        let [one, two, three] = ENDING;
        let ending = [signal(one)?, signal(two)?, signal(three)?];
        let [one, two, three] = PASSING;
        Ok(Signals { ending, passing: [signal(one)?, signal(two)?, signal(three)?] })
    }

    /// The next one, and whether it ends the service.
    async fn next(&mut self) -> (SignalKind, bool) {
        let [a, b, c] = &mut self.ending;
        let [d, e, f] = &mut self.passing;
        tokio::select! {
            _ = a.recv() => (ENDING[0], true),
            _ = b.recv() => (ENDING[1], true),
            _ = c.recv() => (ENDING[2], true),
            _ = d.recv() => (PASSING[0], false),
            _ = e.recv() => (PASSING[1], false),
            _ = f.recv() => (PASSING[2], false),
        }
    }
}

async fn serve(args: Args) -> anyhow::Result<ExitCode> {
    let place = args.credentials.at(args.registry);
    if args.ttl < Duration::from_secs(1) {
        bail!("--ttl: must be at least 1s");
    }
    if args.health.as_ref().is_some_and(|path| !path.starts_with('/')) {
        bail!("--health: must begin with `/`");
    }
    let address = address(&args.address, place.member()).await.context("--address")?;
    let mut instance = Instance::new(&args.service, address);
    instance.weight = args.weight;
    instance.metadata = args.metadata.into_iter().collect::<Metadata>();
    instance.tags = args.tags;
    instance.health = args.health;
    instance.ttl = args.ttl;
    if let Some(id) = args.id {
        instance.id = id;
    }
    // Heard before the service runs, so that none is lost.
    let mut signals = Signals::heard()?;
    let mut child = match args.command.split_first() {
        None => None,
        Some((program, arguments)) => {
            let child = Command::new(program).args(arguments).spawn();
            Some(child.with_context(|| format!("{program} cannot be run"))?)
        }
    };
    let id = child.as_ref().and_then(id);
    let answers = tokio::select! {
        () = answering(&instance) => true,
        status = ended(&mut child) => return Ok(code(status)),
        () = passed_on_until_end(&mut signals, id) => false,
    };
    if !answers {
        return Ok(code(finish(&mut child, &mut signals, SignalKind::terminate()).await));
    }
    let service = instance.service.clone();
    let registration =
        Registration::at(&place, instance).map_err(|problem| anyhow::anyhow!("--registry: {problem}"))?;
    let mut told = false;
    let status = loop {
        let (kind, ends) = tokio::select! {
            () = registration.registered(), if !told => {
                told = true;
                out::complain(format_args!("{service} at {address} is registered"));
                continue;
            }
            status = ended(&mut child) => break status,
            signal = signals.next() => signal,
        };
        if !ends {
            pass_on(id, kind);
            continue;
        }
        registration.drain().await;
        tokio::select! {
            () = sleep(args.drain) => {}
            // Asked twice: at once.
            _ = signals.next() => {}
        }
        break finish(&mut child, &mut signals, kind).await;
    };
    registration.leave().await;
    Ok(code(status))
}

/// As it is written, or of this machine toward the registry.
async fn address(written: &str, registry: &str) -> anyhow::Result<SocketAddr> {
    let Some(port) = written.strip_prefix("auto:") else {
        let address: SocketAddr = written.parse().context("expected IP:PORT or auto:PORT")?;
        if address.ip().is_unspecified() || address.port() == 0 {
            bail!("{address} is no address that others can connect to; auto:PORT takes that of this machine");
        }
        return Ok(address);
    };
    let port = port.parse().ok().filter(|port| *port > 0).context("expected auto:PORT")?;
    let registry = tokio::net::lookup_host(registry).await.context("the registry's address")?.next();
    let registry = registry.context("the registry has no address")?;
    let any: IpAddr = if registry.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    // Nothing is sent: the system only says from which address it would be.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(registry).await.context("there is no way to the registry")?;
    Ok(SocketAddr::new(socket.local_addr()?.ip(), port))
}

/// Waits until the service answers.
async fn answering(instance: &Instance) {
    crate::http::tls::install_provider();
    let http = reqwest::Client::builder().no_proxy().timeout(ANSWER).build().ok();
    loop {
        let answers = match (&instance.health, &http) {
            (Some(path), Some(http)) => {
                let answer = http.get(format!("http://{}{path}", instance.address)).send().await;
                answer.is_ok_and(|answer| answer.status().is_success())
            }
            _ => timeout(ANSWER, TcpStream::connect(instance.address)).await.is_ok_and(|connected| connected.is_ok()),
        };
        if answers {
            return;
        }
        sleep(LOOK).await;
    }
}

async fn ended(child: &mut Option<Child>) -> Option<ExitStatus> {
    match child {
        Some(child) => child.wait().await.ok(),
        None => std::future::pending().await,
    }
}

async fn passed_on_until_end(signals: &mut Signals, id: Option<Pid>) {
    loop {
        match signals.next().await {
            (_, true) => return,
            (kind, false) => pass_on(id, kind),
        }
    }
}

/// Tells the service to end, and waits for it; signals that come are passed on.
async fn finish(child: &mut Option<Child>, signals: &mut Signals, kind: SignalKind) -> Option<ExitStatus> {
    let id = id(child.as_ref()?);
    pass_on(id, kind);
    loop {
        let kind = tokio::select! {
            status = ended(child) => return status,
            (kind, _) = signals.next() => kind,
        };
        pass_on(id, kind);
    }
}

fn id(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

fn pass_on(id: Option<Pid>, kind: SignalKind) {
    let signal = rustix::process::Signal::from_named_raw(kind.as_raw_value());
    if let (Some(id), Some(signal)) = (id, signal) {
        // It may have ended just now.
        let _ = rustix::process::kill_process(id, signal);
    }
}

/// The service's, as a shell would give it.
fn code(status: Option<ExitStatus>) -> ExitCode {
    let Some(status) = status else { return ExitCode::SUCCESS };
    let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
