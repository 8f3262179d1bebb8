//! How much an engine makes room for.

/// How much an engine makes room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// Threads that ask policies.
    pub workers: usize,
    /// Instances of each version that are kept ready for each worker. A fault uses one up, and the thread that builds new
    /// ones must keep up with the faults that suspend nobody: for a Rust policy that is 40,000 a second, for one in Python
    /// 1,900. These bridge the time until that thread is run; then workers build for themselves, if that is quick.
    pub ready_per_worker: usize,
    /// Versions that may be loaded at a time: the live ones, those that are being readied, and those that were replaced a
    /// moment ago. The configuration's `policies.max_versions`.
    pub versions: usize,
}

impl EngineSettings {
    /// The defaults: eight ready instances among the workers, or two for each, and 1,000 versions.
    pub fn for_workers(workers: usize) -> Self {
        let workers = workers.max(1);
        EngineSettings { workers, ready_per_worker: 8_usize.div_ceil(workers).max(2), versions: 1000 }
    }

    /// Instances of a version. Two more than are ready, since a new one is built while a used one waits to be taken apart.
    pub(super) fn instances(&self) -> usize {
        self.workers * self.ready_per_worker + 2
    }

    /// Nothing works with none.
    pub(super) fn at_least_one(self) -> Self {
        let EngineSettings { workers, ready_per_worker, versions } = self;
        EngineSettings { workers: workers.max(1), ready_per_worker: ready_per_worker.max(1), versions: versions.max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_instances_are_ready_whatever_the_number_of_workers() {
        for workers in 0..100 {
            let EngineSettings { workers, ready_per_worker, .. } = EngineSettings::for_workers(workers);
            assert!(workers * ready_per_worker >= 8 && ready_per_worker >= 2);
        }
    }
}
