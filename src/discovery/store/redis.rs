//! A store in Redis or Valkey: scripts, so that each thing that is done is done at once, whoever else does something.

use super::{Job, Numbers, Op, Said, Settings};
use crate::base::seldom::Seldom;
use crate::discovery::registry::redis::{Client, Keyed};
use redis::{Cmd, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Under way at a time.
const AT_ONCE: usize = 256;
/// Between two looks whether a store that failed is back, and how long it has to say so.
const LOOK: Duration = Duration::from_millis(200);
const PING: Duration = Duration::from_secs(2);

/// KEYS[1]; ARGV: delta, time to live in ms. Gives the value and its time to live.
const ADD: &str = "if ARGV[1] == '0' then return {tonumber(redis.call('GET', KEYS[1]) or '0'), redis.call('PTTL', KEYS[1])} end \
                   local born = redis.call('EXISTS', KEYS[1]) == 0 \
                   local value = redis.call('INCRBY', KEYS[1], ARGV[1]) \
                   if born and ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end \
                   return {value, redis.call('PTTL', KEYS[1])}";
/// KEYS[1]; ARGV: tokens, per second, burst. Gives thousandths of tokens. A bucket that is full again is forgotten.
const TAKE: &str = "local time = redis.call('TIME') \
                    local now = time[1] * 1000 + math.floor(time[2] / 1000) \
                    local burst, rate = tonumber(ARGV[3]), tonumber(ARGV[2]) \
                    local was = redis.call('HMGET', KEYS[1], 't', 'at') \
                    local tokens = burst \
                    if was[1] then tokens = math.min(burst, tonumber(was[1]) + math.max(0, now - tonumber(was[2])) * rate / 1000) end \
                    tokens = math.max(-burst, tokens - tonumber(ARGV[1])) \
                    redis.call('HSET', KEYS[1], 't', tostring(tokens), 'at', now) \
                    if rate > 0 then redis.call('PEXPIRE', KEYS[1], math.min(4000000000, math.ceil((burst - tokens) * 1000 / rate) + 1000)) end \
                    return math.floor(tokens * 1000)";
/// KEYS[1]; ARGV: value, time to live in ms, `1`: only where there is none. Gives what is there then, and its time to live.
const SET: &str = "local there = ARGV[3] == '1' and redis.call('GET', KEYS[1]) \
                   if not there then \
                   if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1]) else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end \
                   there = ARGV[1] end \
                   return {there, redis.call('PTTL', KEYS[1])}";
const GET: &str = "return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}";

/// Does what waits in the queue.
pub(super) struct Worker {
    keyed: Arc<Keyed>,
    prefix: String,
    deadline: Duration,
    numbers: Arc<Numbers>,
    failing: Arc<AtomicBool>,
    told: Seldom,
}

impl Worker {
    pub(super) fn new(settings: &Settings, numbers: Arc<Numbers>, failing: Arc<AtomicBool>) -> Self {
        Worker {
            keyed: Arc::new(Keyed::new(Client::new(settings.redis.clone()))),
            prefix: settings.own.prefix.clone(),
            deadline: settings.own.deadline,
            numbers,
            failing,
            told: Seldom::each(Duration::from_secs(10)),
        }
    }

    pub(super) async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            self.connect(&mut jobs).await;
            self.work(&mut jobs).await;
        }
    }

    /// Until it answers. What is asked for meanwhile is not done.
    async fn connect(&self, jobs: &mut mpsc::Receiver<Job>) {
        let back = async {
            loop {
                // A connection takes longer than what the deadline of one thing allows.
                match timeout(PING, self.keyed.ask(self.prefix.as_bytes(), &redis::cmd("PING"))).await {
                    Ok(Ok(_)) => return,
                    Ok(Err(failure)) => self.tell(&failure.problem),
                    Err(_) => self.tell("no answer in time"),
                }
                sleep(LOOK).await;
            }
        };
        let mut back = std::pin::pin!(back);
        loop {
            tokio::select! {
                () = &mut back => break,
                Some(job) = jobs.recv() => {
                    self.numbers.failed.fetch_add(1, Relaxed);
                    (job.done)(None);
                }
            }
        }
        self.failing.store(false, Relaxed);
    }

    fn tell(&self, problem: &str) {
        if self.told.may().is_some() {
            tracing::warn!(problem, "a store does not answer; each gateway counts for itself meanwhile");
        }
    }

    /// Until it fails.
    async fn work(&self, jobs: &mut mpsc::Receiver<Job>) {
        let mut under_way: JoinSet<bool> = JoinSet::new();
        loop {
            let full = under_way.len() >= AT_ONCE;
            tokio::select! {
                Some(job) = jobs.recv(), if !full => {
                    let (keyed, numbers, deadline) = (Arc::clone(&self.keyed), Arc::clone(&self.numbers), self.deadline);
                    let (key, command) = command(&self.prefix, &job.key, &job.op);
                    under_way.spawn(async move {
                        let began = Instant::now();
                        let answer = timeout(deadline, keyed.ask(&key, &command)).await;
                        let said = answer.ok().and_then(Result::ok).and_then(|answer| read(&job.op, &answer));
                        let good = said.is_some();
                        let counter = if good { &numbers.answered } else { &numbers.failed };
                        counter.fetch_add(1, Relaxed);
                        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                        numbers.waited_us.fetch_add(took, Relaxed);
                        (job.done)(said);
                        good
                    });
                }
                Some(ended) = under_way.join_next() => if !matches!(ended, Ok(true)) {
                    self.failing.store(true, Relaxed);
                    return;
                },
                else => std::future::pending().await,
            }
        }
    }
}

/// The key with all that is before it, and what is asked.
fn command(prefix: &str, key: &str, op: &Op) -> (Vec<u8>, Cmd) {
    let space = match op {
        Op::Add(..) => "c",
        Op::Take(..) => "b",
        Op::Get | Op::Set(..) | Op::GetOrSet(..) | Op::Remove => "v",
    };
    let key = format!("{prefix}{space}:{key}").into_bytes();
    let script = |text: &str| {
        let mut command = redis::cmd("EVAL");
        command.arg(text).arg(1).arg(key.as_slice());
        command
    };
    let command = match op {
        Op::Add(delta, ttl) => script(ADD).arg(*delta).arg(*ttl).clone(),
        Op::Take(tokens, rate) => {
            // An infinite rate is a bucket that is always full.
            let per_second = if rate.per_second.is_finite() { rate.per_second } else { 1e9 };
            script(TAKE).arg(*tokens).arg(per_second).arg(rate.burst).clone()
        }
        Op::Get => script(GET),
        Op::Set(value, ttl) => script(SET).arg(value).arg(*ttl).arg(0).clone(),
        Op::GetOrSet(value, ttl) => script(SET).arg(value).arg(*ttl).arg(1).clone(),
        Op::Remove => redis::cmd("DEL").arg(key.as_slice()).clone(),
    };
    (key, command)
}

/// What the answer says. None: it is none.
fn read(op: &Op, answer: &Value) -> Option<Said> {
    let ttl = |value: &Value| match value {
        Value::Int(ttl) => u32::try_from(*ttl).ok(),
        _ => None,
    };
    match (op, answer) {
        (Op::Add(..), Value::Array(pair)) => match pair.as_slice() {
            [Value::Int(value), left] => Some(Said::Counter(*value, ttl(left))),
            _ => None,
        },
        (Op::Take(..), Value::Int(thousandths)) => Some(Said::Tokens(*thousandths as f64 / 1000.0)),
        (Op::Remove, Value::Int(_)) => Some(Said::Value(None)),
        (Op::Get | Op::Set(..) | Op::GetOrSet(..), Value::Array(pair)) => match pair.as_slice() {
            [Value::BulkString(value), left] => {
                let value = String::from_utf8(value.clone()).ok()?;
                Some(Said::Value(Some((value, ttl(left)))))
            }
            [Value::Nil, _] => Some(Said::Value(None)),
            _ => None,
        },
        _ => None,
    }
}
