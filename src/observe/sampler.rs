//! What is looked at closely only while somebody looks: single records, and the count of records by
//! partition. While nobody does, a click pays one relaxed load for it.
//!
//! What is copied of a record, and how many are, is bounded: at most [`SAMPLES_MAX`] at a time, which
//! whoever looks takes away and asks for anew.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::click::outcome::Held;

/// Records to be looked at before the next ones are asked for.
pub const SAMPLES_MAX: u32 = 512;

/// Bytes that are copied of a key and of a value.
pub const KEY_MAX: usize = 128;
pub const VALUE_MAX: usize = 600;

/// Whether somebody looks, and what there is to see.
#[derive(Default)]
pub struct Sampler {
    /// How many records may still be copied; none while nobody looks.
    wanted: AtomicU32,
    is_on: AtomicBool,
    records: Mutex<Vec<SampledRecord>>,
    partitions: Mutex<Vec<Partition>>,
}

/// What is copied of a record. It has no `Debug`: it holds part of a body.
pub struct SampledRecord {
    pub received: Timestamp,
    /// None for a dead letter.
    pub key: Option<Box<[u8]>>,
    pub value: Box<[u8]>,
    /// Bytes of the whole value.
    pub length: usize,
    pub held: Option<Held>,
}

/// Records that the Kafka client has sent to a partition since it was started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    pub topic: String,
    pub number: i32,
    pub records: u64,
}

impl Sampler {
    /// Copies the beginning of a record, if somebody looks.
    #[inline]
    pub fn sample(
        &self,
        received: Timestamp,
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Option<Box<SampledRecord>> {
        if self.wanted.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.copy(received, key, value)
    }

    #[cold]
    fn copy(
        &self,
        received: Timestamp,
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Option<Box<SampledRecord>> {
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

    /// Shows a record that is held. It is not shown where that would have to wait.
    #[inline]
    pub fn keep(&self, sample: Option<Box<SampledRecord>>, held: Held) {
        if let Some(mut sample) = sample
            && let Ok(mut records) = self.records.try_lock()
            && records.len() < SAMPLES_MAX as usize
        {
            sample.held = Some(held);
            records.push(*sample);
        }
    }

    /// Asks for the next records, and takes those that have come.
    pub fn take(&self) -> Vec<SampledRecord> {
        self.is_on.store(true, Ordering::Relaxed);
        let records = std::mem::take(&mut *lock(&self.records));
        self.wanted.store(SAMPLES_MAX, Ordering::Relaxed);
        records
    }

    /// Nobody looks any more: nothing is kept.
    pub fn stop(&self) {
        self.is_on.store(false, Ordering::Relaxed);
        self.wanted.store(0, Ordering::Relaxed);
        *lock(&self.records) = Vec::new();
        *lock(&self.partitions) = Vec::new();
    }

    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    pub fn set_partitions(&self, mut partitions: Vec<Partition>) {
        partitions.sort_unstable();
        *lock(&self.partitions) = partitions;
    }

    /// By topic and number.
    pub fn partitions(&self) -> Vec<Partition> {
        lock(&self.partitions).clone()
    }
}

/// Nothing is done under these locks that could be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sampler: &Sampler, value: &[u8]) -> Option<Box<SampledRecord>> {
        sampler.sample(Timestamp::UNIX_EPOCH, Some(b"7"), value)
    }

    #[test]
    fn nothing_is_copied_while_nobody_looks() {
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
