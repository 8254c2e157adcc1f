//! Histories of a store on a disk that fails a sync, forgets what the sync covered, and loses its power: at every
//! sync of the history.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::super::disk::Disk;
use super::super::disk::simulated::{SimulatedDisk, SyncFault};
use super::super::error::StoreError;
use super::super::segment::Kind;
use super::super::segment::{NewEvent, SegmentDamage};
use super::super::{Position, frame};
use super::Store;
use crate::click::record::tests::record_of;

/// A store, what it should hold, and what it may hold.
struct History {
    disk: SimulatedDisk,
    store: Option<Store>,
    /// Events that were confirmed, and whose removal was not.
    held: BTreeSet<u64>,
    /// Events whose put or removal failed: nobody was told that they are there, or gone.
    unsure: BTreeSet<u64>,
    next: u64,
    failures: usize,
}

impl History {
    fn new(fault: Option<(usize, SyncFault)>) -> History {
        let disk = SimulatedDisk::default();
        disk.state().fault = fault;
        let (held, unsure) = Default::default();
        History { disk, store: None, held, unsure, next: 1, failures: 0 }
    }

    fn open(disk: &SimulatedDisk) -> Result<Store, StoreError> {
        // Segments of 64 KiB.
        Store::open(Arc::new(disk.clone()), 16 << 20, 1 << 20)
    }

    /// The store; after a failure it is opened again, as the writer does, and after a power cut with what is left.
    fn store(&mut self) -> &mut Store {
        for _ in 0..3 {
            if self.store.is_some() {
                break;
            }
            if self.disk.state().has_no_power {
                self.disk.cut_power();
            }
            match History::open(&self.disk) {
                Ok(store) => self.store = Some(store),
                Err(_) => self.failures += 1,
            }
        }
        self.store.as_mut().expect("one fault alone")
    }

    fn put(&mut self, count: u64) {
        self.next += count;
        self.put_these((self.next - count..self.next).collect());
    }

    fn put_these(&mut self, numbers: Vec<u64>) {
        let frames: Vec<_> =
            numbers.iter().map(|number| (position(*number), event(*number))).collect();
        let mut events: Vec<NewEvent> = frames
            .iter()
            .map(|(position, frame)| NewEvent { entry: *position, frame, topic: "clicks" })
            .collect();
        match self.store().put(&mut events) {
            Ok(()) => self.held.extend(numbers),
            Err(append) => {
                self.unsure.extend(numbers);
                self.failures += 1;
                if !append.into_error().is_disk_full() {
                    self.store = None;
                }
            }
        }
    }

    fn remove(&mut self, numbers: Vec<u64>) {
        let result = self.store().remove(Kind::Waiting, &numbers).and_then(|_| {
            let store = self.store.as_mut().expect("it is open");
            store.maintain()
        });
        for number in &numbers {
            self.held.remove(number);
        }
        if result.is_err() {
            self.failures += 1;
            self.unsure.extend(numbers);
            self.store = None;
        }
    }

    fn numbers(&mut self, which: Kind) -> Vec<u64> {
        let mut numbers = Vec::new();
        let read = self.store().read(which, 0, |position, bytes| {
            assert!(frame::read(bytes).is_some_and(|frame| frame.position == position));
            numbers.push(position.sequence);
            true
        });
        read.expect("a disk that works");
        numbers
    }

    /// What is missing, once all of the store was read.
    fn damages(&mut self) -> Vec<SegmentDamage> {
        let store = self.store();
        while !store.is_checked() {
            store.check_next().expect("read");
        }
        store.take_checked().into_iter().filter_map(|checked| checked.damage).collect()
    }

    /// What is there is what was promised, in its order; nothing that is surely gone came back.
    fn check(&mut self, what: &str) {
        let there = self.numbers(Kind::Waiting);
        assert!(there.is_sorted(), "{what}: {there:?}");
        let there: BTreeSet<u64> = there.into_iter().collect();
        let lost: Vec<_> = self.held.difference(&there).collect();
        assert!(lost.is_empty(), "{what}: lost {lost:?}");
        let more: Vec<_> =
            there.difference(&self.held).filter(|n| !self.unsure.contains(n)).collect();
        assert!(more.is_empty(), "{what}: there again {more:?}");
        let damaged = self.damages().into_iter();
        let missing = damaged.map(|damage| damage.missing).sum::<u64>();
        // Of a torn batch nobody can tell that it was never confirmed.
        assert!(missing == 0 || what.contains("Torn") && missing <= 20, "{what}: {missing}");
    }

    /// Several segments, most of them emptied, one written anew because little is left of it.
    fn run(&mut self) {
        for round in 0..24 {
            self.put(1 + round % 7);
            if round % 3 == 2 {
                let oldest: Vec<u64> = self.held.iter().copied().take(4).collect();
                self.remove(oldest);
            }
        }
        self.put(120);
        // Every event but each tenth.
        let most: Vec<u64> = self.held.iter().copied().filter(|number| number % 10 > 0).collect();
        for some in most.chunks(40) {
            self.remove(some.to_vec());
        }
        self.put(20);
    }
}

fn position(sequence: u64) -> Position {
    Position { sequence, shard: u16::try_from(sequence % 7).expect("a shard") }
}

fn event(sequence: u64) -> bytes::Bytes {
    let body = format!(
        r#"{{"campid":"{}","relid":"{sequence}","text":"{}"}}"#,
        sequence % 7,
        "x".repeat(500)
    );
    let record = record_of(&body, "2026-01-10T12:00:00Z", None);
    frame::write(position(sequence), Timestamp::UNIX_EPOCH, &record).expect("a frame")
}

#[test]
fn no_failed_sync_no_full_disk_and_no_power_cut_loses_an_event() {
    let mut calm = History::new(None);
    calm.run();
    calm.check("calm");
    let syncs = calm.disk.state().syncs;
    assert!(syncs > 40, "{syncs}");
    let mut failures = HashMap::new();
    for fault in [
        SyncFault::Forgets,
        SyncFault::ForgetsAndEvicts,
        SyncFault::PowerCut,
        SyncFault::TornPowerCut,
        SyncFault::Full,
    ] {
        for at in 1..=syncs {
            let what = format!("{fault:?} at {at}");
            let mut history = History::new(Some((at, fault)));
            history.run();
            history.check(&what);
            *failures.entry(format!("{fault:?}")).or_insert(0) += history.failures;
            // And the power goes at the end.
            history.store = None;
            history.disk.cut_power();
            history.check(&format!("{what}, then a power cut"));
        }
    }
    assert!(failures.values().all(|count| *count >= syncs / 2), "{failures:?}");
}

#[test]
fn a_store_that_was_closed_is_read_without_reading_its_events() {
    let mut history = History::new(None);
    history.put(300);
    history.remove((1..100).collect());
    let totals = history.store().totals();
    history.store.take().expect("it is open").close().expect("closed");
    let mut store = History::open(&history.disk).expect("a store");
    assert!(!store.is_checked());
    assert_eq!(store.totals(), totals);
    while !store.is_checked() {
        store.check_next().expect("read");
    }
    assert_eq!(store.totals(), totals);
    let shards: usize = store.take_checked().iter().map(|checked| checked.shards.len()).sum();
    assert_eq!(shards, 201);
}

#[test]
fn the_disk_is_given_back_as_events_go() {
    let mut history = History::new(None);
    for _ in 0..20 {
        history.put(100);
    }
    let names = history.disk.state().names.len();
    assert!(names > 20, "{names}");
    // One in twelve stays, as with a partition without a leader.
    let most: Vec<u64> = history.held.iter().copied().filter(|number| number % 12 > 0).collect();
    for some in most.chunks(200) {
        history.remove(some.to_vec());
    }
    for _ in 0..50 {
        history.store().maintain().expect("room");
    }
    let totals = history.store().totals();
    let state = history.disk.state();
    let size: usize = state.names.values().map(|number| state.files[*number].cached.len()).sum();
    drop(state);
    let most = totals.bytes as usize * 12 / 10 + 3 * (64 << 10);
    assert!(size < most, "{size} bytes for {}", totals.bytes);
    history.check("sparse");
    let rest: Vec<u64> = history.held.iter().copied().collect();
    history.remove(rest);
    history.check("empty");
    assert_eq!(history.store().totals().bytes, 0);
}

/// Events come in another order than they arrived where Kafka had some of them first. The simulation of delivery found
/// what was delivered again and again.
#[test]
fn joined_segments_keep_the_order_of_their_events() {
    let mut history = History::new(None);
    history.put_these((0..150).map(|number| 2 * number + 2).collect());
    history.put_these((0..150).map(|number| 2 * number + 1).collect());
    // The open segment is not joined.
    history.put_these((301..450).collect());
    let segments = |history: &History| {
        history.disk.state().names.keys().filter(|name| name.ends_with(".waiting")).count()
    };
    assert_eq!(segments(&history), 3);
    let most: Vec<u64> = history.held.iter().copied().filter(|number| number % 15 > 1).collect();
    history.remove(most);
    assert_eq!(segments(&history), 2);
    history.check("joined");
    let rest: Vec<u64> = history.held.iter().copied().collect();
    history.remove(rest);
    history.check("empty");
}

#[test]
fn what_was_damaged_is_counted() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage, u64); 5] = [
        ("a flipped bit in an event", |file| file[700] ^= 1, 1),
        ("a page of zeros", |file| file[4_096..8_192].fill(0), 7),
        ("a file cut off", |file| file.truncate(20_000), 0),
        ("an empty file", Vec::clear, 0),
        ("no head", |file| file[..20].fill(0), 0),
    ];
    for (what, damage, most) in damages {
        for is_closed in [true, false] {
            let mut history = History::new(None);
            history.put(40);
            history.put(40);
            history.store().tick().expect("noted");
            history.remove(vec![1]);
            let store = history.store.take().expect("it is open");
            if is_closed {
                store.close().expect("closed");
            }
            {
                let mut state = history.disk.state();
                let number = *state
                    .names
                    .iter()
                    .find(|(name, _)| name.ends_with(".waiting"))
                    .expect("one")
                    .1;
                damage(&mut state.files[number].cached);
            }
            let there = history.numbers(Kind::Waiting);
            let found = history.damages().into_iter();
            let found: Vec<_> = found.collect();
            assert_eq!(found.len(), 1, "{what}: {found:?}");
            let missing = 79 - there.len() as u64;
            assert_eq!(found[0].missing, missing, "{what} {is_closed} {found:?} {there:?}");
            assert!(most == 0 || missing <= most, "{what}: {missing}");
            // What a cut takes with it can be known only where the segment was complete.
            if missing > 0 && (is_closed || !what.contains("file")) {
                assert_eq!(found[0].topics, ["clicks"], "{what} {is_closed}");
            }
            let kept = history
                .disk
                .state()
                .names
                .keys()
                .filter(|name| name.starts_with("damaged-"))
                .count();
            assert_eq!(kept, 1, "{what}");
            // It is whole again.
            history.store = None;
            assert_eq!(history.numbers(Kind::Waiting), there, "{what}");
            let again = history.damages().into_iter();
            assert_eq!(again.count(), 0, "{what}");
        }
    }
}

#[test]
fn a_segment_that_is_gone_is_missed() {
    for is_closed in [true, false] {
        let mut history = History::new(None);
        history.put(40);
        history.store().tick().expect("noted");
        let store = history.store.take().expect("it is open");
        if is_closed {
            store.close().expect("closed");
        }
        history.disk.state().names.retain(|name, _| !name.ends_with(".waiting"));
        let found = history.damages().into_iter();
        assert_eq!(found.map(|damage| damage.missing).collect::<Vec<_>>(), [40], "{is_closed}");
    }
    // While the store is open nothing is lost.
    let mut history = History::new(None);
    history.put(40);
    history.disk.state().names.retain(|name, _| !name.ends_with(".waiting"));
    history.store().tick().expect("written anew");
    let found = history.damages().into_iter();
    assert_eq!(found.map(|damage| (damage.read, damage.missing)).collect::<Vec<_>>(), [(40, 0)]);
    history.store = None;
    history.disk.cut_power();
    history.check("deleted");
}

#[test]
fn a_folder_of_a_newer_version_is_left_alone() {
    let mut history = History::new(None);
    history.put(1);
    history.store.take().expect("it is open").close().expect("closed");
    let file = history.disk.create("manifest.json").expect("a file");
    file.write(0, br#"{"format": 2, "other": true}"#).expect("written");
    let opened = History::open(&history.disk);
    assert!(matches!(opened, Err(StoreError::Newer(2))));
}
