//! The clock and the random numbers a guest sees: both follow from the job's id, so two hosts give the same answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

/// Every look at a clock moves it on by this much, so that a guest which waits for time to pass sees it pass.
const STEP_NANOS: u64 = 1_000;

/// Where the clock of a job starts whose id tells no time: 2025-01-01T00:00:00Z.
const EPOCH_MILLIS: u64 = 1_735_689_600_000;

/// A clock of one store, for both `wall-clock` and `monotonic-clock`.
#[derive(Clone, Debug)]
pub(super) struct VirtualClock {
    start: Duration,
    passed: Arc<AtomicU64>,
}

impl VirtualClock {
    /// Starts at the time in the job's id if that is a UUID of version 7.
    pub(super) fn new(job_id: &str) -> Self {
        let time = uuid::Uuid::parse_str(job_id)
            .ok()
            .filter(|id| id.get_version_num() == 7);
        let millis = time.map_or(EPOCH_MILLIS, |id| {
            u64::try_from(id.as_u128() >> 80).unwrap_or(EPOCH_MILLIS)
        });
        Self {
            start: Duration::from_millis(millis),
            passed: Arc::default(),
        }
    }

    fn tick(&self) -> u64 {
        self.passed.fetch_add(STEP_NANOS, Ordering::Relaxed)
    }
}

impl HostWallClock for VirtualClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(STEP_NANOS)
    }

    fn now(&self) -> Duration {
        self.start.saturating_add(Duration::from_nanos(self.tick()))
    }
}

impl HostMonotonicClock for VirtualClock {
    fn resolution(&self) -> u64 {
        STEP_NANOS
    }

    fn now(&self) -> u64 {
        self.tick()
    }
}

/// The generators behind `random`, `insecure` and `insecure-seed`.
pub(super) struct Randomness {
    pub(super) secure: ChaCha8Rng,
    pub(super) insecure: ChaCha8Rng,
    pub(super) seed: u128,
}

impl Randomness {
    pub(super) fn new(job_id: &str) -> Self {
        let digest = |name: &str| -> [u8; 32] {
            Sha256::new()
                .chain_update(name)
                .chain_update([0])
                .chain_update(job_id)
                .finalize()
                .into()
        };
        let [seed, _]: [[u8; 16]; 2] = halves(digest("insecure-seed"));
        Self {
            secure: ChaCha8Rng::from_seed(digest("random")),
            insecure: ChaCha8Rng::from_seed(digest("insecure")),
            seed: u128::from_le_bytes(seed),
        }
    }
}

fn halves(bytes: [u8; 32]) -> [[u8; 16]; 2] {
    let mut halves = [[0; 16]; 2];
    for (half, chunk) in halves.iter_mut().zip(bytes.as_chunks::<16>().0) {
        *half = *chunk;
    }
    halves
}
