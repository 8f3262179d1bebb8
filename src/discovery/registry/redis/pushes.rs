//! What servers say unasked: which keys changed, that all may have, or that a connection has ended. It is gathered here,
//! once a key, until somebody has time for it.

use redis::{PushInfo, PushKind, Value};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Of more keys than this nothing is kept but that all may have changed.
const MOST: usize = 65_536;

/// What was pushed since somebody last looked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Keys that changed.
    pub keys: BTreeSet<Vec<u8>>,
    /// All of them may have.
    pub all: bool,
    /// Connections that have ended, by [`super::Connection::id`].
    pub ended: Vec<u64>,
}

/// Gathers what the connections that it is given to are pushed.
#[derive(Debug, Clone, Default)]
pub struct Pushes(Arc<(Mutex<News>, Notify)>);

impl Pushes {
    /// What was pushed, as soon as there is something. May be dropped while it waits: nothing is lost.
    pub async fn next(&self) -> News {
        loop {
            let news = std::mem::take(&mut *self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
            if news != News::default() {
                return news;
            }
            self.0.1.notified().await;
        }
    }

    fn note(&self, note: impl FnOnce(&mut News)) {
        let mut news = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut news);
        if news.keys.len() > MOST {
            news.keys.clear();
            news.all = true;
        }
        drop(news);
        self.0.1.notify_one();
    }

    /// This key changed.
    pub(super) fn key(&self, key: Vec<u8>) {
        self.note(|news| {
            news.keys.insert(key);
        });
    }

    /// This connection has ended.
    pub(super) fn ended(&self, connection: u64) {
        self.note(|news| news.ended.push(connection));
    }

    /// Takes what a connection was pushed. What it was not asked to say is looked past.
    pub(super) fn take(&self, connection: u64, push: PushInfo) {
        let PushInfo { kind, data } = push;
        match kind {
            PushKind::Disconnection => self.ended(connection),
            PushKind::Invalidate => match data.into_iter().next() {
                Some(Value::Array(keys)) => self.note(|news| {
                    let key = |value| if let Value::BulkString(key) = value { Some(key) } else { None };
                    news.keys.extend(keys.into_iter().filter_map(key));
                }),
                // The whole database was flushed, or it is not known what was.
                _ => self.note(|news| news.all = true),
            },
            PushKind::PMessage => {
                if let Some(Value::BulkString(channel)) = data.get(1)
                    && let Some(key) = key_of(channel)
                {
                    self.key(key.to_vec());
                }
            }
            _ => {}
        }
    }
}

/// The key in the name of a channel `__keyspace@0__:KEY`.
pub(super) fn key_of(channel: &[u8]) -> Option<&[u8]> {
    let rest = channel.strip_prefix(b"__keyspace@")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    rest.get(digits..)?.strip_prefix(b"__:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalidate(data: Value) -> PushInfo {
        PushInfo { kind: PushKind::Invalidate, data: vec![data] }
    }

    #[tokio::test]
    async fn keys_are_gathered_once_each_and_too_many_are_all() {
        let pushes = Pushes::default();
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        pushes.take(1, invalidate(Value::Array(vec![text("a"), text("b"), Value::Nil])));
        pushes.take(1, invalidate(Value::Array(vec![text("a")])));
        let message = vec![text("__keyspace@0__:*"), text("__keyspace@0__:c"), text("set")];
        pushes.take(1, PushInfo { kind: PushKind::PMessage, data: message });
        pushes.take(2, PushInfo { kind: PushKind::Disconnection, data: vec![] });
        pushes.take(2, PushInfo { kind: PushKind::Other("new".to_owned()), data: vec![] });
        let keys = [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()].into();
        assert_eq!(pushes.next().await, News { keys, all: false, ended: vec![2] });
        pushes.take(1, invalidate(Value::Nil));
        assert!(pushes.next().await.all);
        for number in 0..=MOST {
            pushes.key(number.to_string().into_bytes());
        }
        assert_eq!(pushes.next().await, News { all: true, ..News::default() });
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), pushes.next()).await.is_err());
    }

    proptest::proptest! {
        #[test]
        fn channels_name_keys(database in 0u8.., key in proptest::collection::vec(0u8.., 0..20)) {
            let channel = [format!("__keyspace@{database}__:").as_bytes(), &key].concat();
            proptest::prop_assert_eq!(key_of(&channel), Some(&*key));
            let _ = key_of(&key);
        }
    }
}
