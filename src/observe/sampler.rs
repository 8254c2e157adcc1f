//! Copies of a few records, and the count of records by partition, while the page has viewers. Without
//! viewers this costs a click one relaxed load.
//!
//! The size of a copy is bounded, and so is their number: at most [`SAMPLES_MAX`] until the page takes
//! them and asks for more.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use jiff::Timestamp;

use crate::click::outcome::Held;
use crate::observe::lock;

/// Records that are copied before the page asks for more.
pub(crate) const SAMPLES_MAX: u32 = 512;

/// Bytes that are copied of a key, and of a value.
pub(crate) const KEY_MAX: usize = 128;
pub(crate) const VALUE_MAX: usize = 600;

#[derive(Default)]
pub struct Sampler {
    /// How many records may still be copied; 0 without viewers.
    wanted: AtomicU32,
    is_on: AtomicBool,
    records: Mutex<Vec<SampledRecord>>,
    partitions: Mutex<Vec<Partition>>,
}

/// A copy of the beginning of a record. It has no `Debug`, because it holds part of a body.
pub(crate) struct SampledRecord {
    pub(crate) received: Timestamp,
    /// None for a dead letter.
    pub(crate) key: Option<Box<[u8]>>,
    pub(crate) value: Box<[u8]>,
    /// Bytes of the whole value.
    pub(crate) length: usize,
    pub(crate) held: Option<Held>,
}

/// Records that the Kafka client has sent to a partition since it was started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    pub(crate) topic: String,
    pub(crate) number: i32,
    pub(crate) records: u64,
}

impl Sampler {
    /// Copies the beginning of a record, if the page wants one.
    #[inline]
    pub(crate) fn sample(
        &self,
        received: Timestamp,
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Option<Box<SampledRecord>> {
        // At 0 this is one load, and nothing is stored.
        let one_less = |wanted: u32| wanted.checked_sub(1);
        self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok()?;
        let cut = |bytes: &[u8], most: usize| bytes[..bytes.len().min(most)].into();
        Some(Box::new(SampledRecord {
            received,
            key: key.map(|key| cut(key, KEY_MAX)),
            value: cut(value, VALUE_MAX),
            length: value.len(),
            held: None,
        }))
    }

    /// Keeps the copy of a record that is held. It is dropped if the lock is taken.
    #[inline]
    pub(crate) fn keep(&self, sample: Option<Box<SampledRecord>>, held: Held) {
        if let Some(mut sample) = sample
            && let Ok(mut records) = self.records.try_lock()
            && records.len() < SAMPLES_MAX as usize
        {
            sample.held = Some(held);
            records.push(*sample);
        }
    }

    /// Takes the copies, and asks for more.
    pub(crate) fn take(&self) -> Vec<SampledRecord> {
        self.is_on.store(true, Ordering::Relaxed);
        let records = std::mem::take(&mut *lock(&self.records));
        self.wanted.store(SAMPLES_MAX, Ordering::Relaxed);
        records
    }

    /// Stops sampling and drops what was kept.
    pub(crate) fn stop(&self) {
        self.is_on.store(false, Ordering::Relaxed);
        self.wanted.store(0, Ordering::Relaxed);
        *lock(&self.records) = Vec::new();
        *lock(&self.partitions) = Vec::new();
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    pub(crate) fn set_partitions(&self, mut partitions: Vec<Partition>) {
        partitions.sort_unstable();
        *lock(&self.partitions) = partitions;
    }

    /// By topic and number.
    pub(crate) fn partitions(&self) -> Vec<Partition> {
        lock(&self.partitions).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sampler: &Sampler, value: &[u8]) -> Option<Box<SampledRecord>> {
        sampler.sample(Timestamp::UNIX_EPOCH, Some(b"7"), value)
    }

    #[test]
    fn nothing_is_copied_without_viewers() {
        let sampler = Sampler::default();
        assert!(sample(&sampler, b"{}").is_none());
        assert!(sampler.take().is_empty());
        let copied = sample(&sampler, &[b'x'; 70_000]);
        sampler.keep(copied, Held::InKafka);
        let records = sampler.take();
        assert_eq!([records[0].value.len(), records[0].length], [VALUE_MAX, 70_000]);
        let late = sample(&sampler, b"{}");
        sampler.stop();
        assert!(sample(&sampler, b"{}").is_none());
        sampler.keep(late, Held::OnDisk);
        assert_eq!(sampler.take().len(), 1, "one that was under way is bounded like any other");
    }

    #[test]
    fn no_more_are_copied_than_were_asked_for() {
        let sampler = Sampler::default();
        sampler.take();
        let copied = (0..2_000).filter_map(|_| sample(&sampler, b"{}")).count();
        assert_eq!(copied, SAMPLES_MAX as usize);
        for _ in 0..2 {
            sampler.wanted.store(SAMPLES_MAX, Ordering::Relaxed);
            for _ in 0..SAMPLES_MAX {
                sampler.keep(sample(&sampler, b"{}"), Held::InKafka);
            }
        }
        assert_eq!(sampler.take().len(), SAMPLES_MAX as usize);
    }
}
