//! Tasks that stay on the thread that they were begun on.

/// Spawns hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub struct LocalExec;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
