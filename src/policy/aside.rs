//! Work that blocks, on a thread of its own. The runtime's own way panics where the system gives no more threads.

use std::io;

/// What the work comes to.
///
/// # Errors
/// There is no thread for it, or it panicked.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (send, done) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("policy-files".into());
    // Nobody waits any more if it cannot be sent.
    thread.spawn(move || drop(send.send(work())))?;
    done.await.map_err(|_| io::Error::other("the work panicked"))
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_panic_is_an_error() {
        assert_eq!(super::aside(|| 1 + 1).await.unwrap(), 2);
        let panics = || -> u8 { panic!("for the test") };
        assert!(super::aside(panics).await.is_err());
    }
}
