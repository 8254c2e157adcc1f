//! What goes wrong in a history, and for how long.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::world::Life;
use crate::kafka::simulated::Code;

/// The longest that something goes wrong.
const TROUBLE_MAX: Duration = Duration::from_secs(40);

/// Of one life.
const FAULTS_MAX: usize = 12;

/// What refuses a whole topic for a while.
const REFUSALS: [Code; 6] = [
    Code::UnknownTopicOrPartition,
    Code::TopicAuthorizationFailed,
    Code::NotEnoughReplicas,
    Code::KafkaStorageError,
    Code::ThrottlingQuotaExceeded,
    Code::Unknown,
];

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InjectedFault {
    ClusterAway,
    NoLeader,
    SlowBrokers,
    TopicRefuses,
    /// Its log begins anew, and the brokers have lost what they knew of the producer.
    TopicMadeAnew,
    LostRequests,
    LostAnswers,
    Unproven,
    ProducerFails,
    DiskFull,
    DiskFailsSyncs,
    DiskFailsReads,
    DiskFailsWrites,
    DiskSlow,
}

impl InjectedFault {
    pub const ALL: [InjectedFault; 14] = [
        InjectedFault::ClusterAway,
        InjectedFault::NoLeader,
        InjectedFault::SlowBrokers,
        InjectedFault::TopicRefuses,
        InjectedFault::TopicMadeAnew,
        InjectedFault::LostRequests,
        InjectedFault::LostAnswers,
        InjectedFault::Unproven,
        InjectedFault::ProducerFails,
        InjectedFault::DiskFull,
        InjectedFault::DiskFailsSyncs,
        InjectedFault::DiskFailsReads,
        InjectedFault::DiskFailsWrites,
        InjectedFault::DiskSlow,
    ];
}

impl Life {
    /// Has these faults come and go, until the task is aborted.
    pub async fn suffer(self: Arc<Self>, faults: Vec<InjectedFault>, longest_pause: Duration) {
        if faults.is_empty() {
            return;
        }
        for _ in 0..FAULTS_MAX {
            let pause = self.world.draw(|random| longest_pause.mul_f64(random.f64()));
            sleep(pause).await;
            let fault = self.world.draw(|random| faults[random.usize(0..faults.len())]);
            self.begin_fault(fault);
        }
    }

    /// Has this fault begin, and end.
    pub fn begin_fault(self: &Arc<Self>, fault: InjectedFault) {
        let duration = self.world.time_up_to(TROUBLE_MAX);
        self.world.tell(|| format!("{fault:?} for {duration:?}"));
        self.world.counts().faults += 1;
        let until = self.world.now() + duration;
        let cluster = || self.world.cluster.state();
        let partition = |topic: &str| {
            let partition = cluster().random_partition();
            (topic.into(), partition)
        };
        let topic = if self.world.one_in(3) { "opens" } else { "clicks" };
        match fault {
            InjectedFault::ClusterAway => cluster().is_away = true,
            InjectedFault::NoLeader => {
                let partition = partition(topic);
                cluster().without_leader.insert(partition);
            }
            InjectedFault::SlowBrokers => cluster().latency_max_ms = 3_000,
            InjectedFault::TopicRefuses | InjectedFault::TopicMadeAnew => {
                let which = self.world.draw(|random| random.usize(0..REFUSALS.len()));
                let made_anew = fault == InjectedFault::TopicMadeAnew;
                let code = if made_anew { Code::UnknownTopicOrPartition } else { REFUSALS[which] };
                cluster().refusing.insert(topic.into(), code);
                if made_anew {
                    cluster().producer_fails = true;
                }
            }
            InjectedFault::LostRequests => cluster().lost_requests = 3,
            InjectedFault::LostAnswers => cluster().lost_answers = 3,
            InjectedFault::Unproven => cluster().unproven = 3,
            InjectedFault::ProducerFails => cluster().producer_fails = true,
            InjectedFault::DiskFull => {
                let more = self.world.draw(|random| random.u64(0..20_000));
                let mut disk = self.world.disk.state();
                disk.trouble.capacity = Some(disk.used() + more);
            }
            InjectedFault::DiskFailsSyncs => {
                let every = self.world.draw(|random| random.u32(1..6));
                self.world.disk.state().trouble.failing_syncs = every;
            }
            InjectedFault::DiskFailsReads => self.world.disk.state().trouble.fails_reads = true,
            InjectedFault::DiskFailsWrites => self.world.disk.state().trouble.fails_writes = true,
            InjectedFault::DiskSlow => self.world.set_disk_delay(Duration::from_secs(5)),
        }
        match fault {
            InjectedFault::DiskFull
            | InjectedFault::DiskFailsSyncs
            | InjectedFault::DiskFailsReads
            | InjectedFault::DiskFailsWrites => self.world.ledger().disk_fails(until),
            InjectedFault::DiskSlow => {
                self.world.ledger().disk_is_slow(until + Duration::from_secs(5));
            }
            _ => {}
        }
        let life = self.clone();
        self.start(async move {
            sleep(duration).await;
            life.world.tell(|| format!("{fault:?} is over"));
            life.end_fault(fault);
        });
    }

    fn end_fault(&self, fault: InjectedFault) {
        let mut cluster = self.world.cluster.state();
        let mut disk = self.world.disk.state();
        match fault {
            InjectedFault::ClusterAway => cluster.is_away = false,
            InjectedFault::NoLeader => cluster.without_leader.clear(),
            InjectedFault::SlowBrokers => cluster.latency_max_ms = 5,
            InjectedFault::TopicRefuses => cluster.refusing.clear(),
            InjectedFault::TopicMadeAnew => {
                cluster.refusing.clear();
                cluster.producer_fails = false;
            }
            InjectedFault::LostRequests => cluster.lost_requests = 0,
            InjectedFault::LostAnswers => cluster.lost_answers = 0,
            InjectedFault::Unproven => cluster.unproven = 0,
            InjectedFault::ProducerFails => cluster.producer_fails = false,
            InjectedFault::DiskFull => disk.trouble.capacity = None,
            InjectedFault::DiskFailsSyncs => disk.trouble.failing_syncs = 0,
            InjectedFault::DiskFailsReads => disk.trouble.fails_reads = false,
            InjectedFault::DiskFailsWrites => disk.trouble.fails_writes = false,
            InjectedFault::DiskSlow => self.world.set_disk_delay(Duration::ZERO),
        }
    }

    /// Ends all faults.
    pub fn end_faults(&self) {
        InjectedFault::ALL.into_iter().for_each(|fault| self.end_fault(fault));
        self.world.ledger().heal_disk(self.world.now());
    }

    /// Ends all faults for good. Topics take now what they refused.
    pub fn heal(&self) {
        self.world.tell(|| "everything works again".to_owned());
        self.end_faults();
        self.world.raise_limits();
    }
}
