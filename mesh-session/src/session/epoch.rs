//! The keys of a session over time.
//!
//! Epochs form a chain of links from older to newer. A stream holds the epoch of its last record, and with it every
//! later one, so that a record that was long under way still finds its keys; an epoch that no stream holds is dropped,
//! and its keys are wiped with it. A peer that steps for the sake of stepping must not make the chain long: the links
//! of epochs that are far behind are cut.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use mesh_crypto::Engine;
use mesh_crypto::MacKey;
use mesh_crypto::aead::OpeningKey;
use mesh_crypto::aead::ParkedKey;
use mesh_crypto::aead::SealingKey;
use parking_lot::RwLock;

use crate::EpochLimits;
use crate::Error;
use crate::Role;
use crate::Suite;
use crate::schedule::Chain;

/// The keys of one epoch, and how much they did.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) number: u8,
    pub(crate) sealing: Arc<SealingKey>,
    pub(crate) sealing_mac: MacKey,
    pub(crate) opening: OpeningKey,
    pub(crate) opening_mac: MacKey,
    opened_blocks: AtomicU64,
    records: AtomicU64,
    newer: RwLock<Option<Arc<Self>>>,
}

impl Epoch {
    /// The epoch that comes `distance` after this one, if it has begun.
    pub(crate) fn after(self: &Arc<Self>, distance: u8) -> Option<Arc<Self>> {
        (0..distance).try_fold(Arc::clone(self), |epoch, _| epoch.newer.read().clone())
    }

    pub(crate) fn sealed(&self) {
        self.records.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn opened(&self, blocks: u64) {
        self.records.fetch_add(1, Ordering::Relaxed);
        self.opened_blocks.fetch_add(blocks, Ordering::Relaxed);
    }

    /// Whether the keys have done their share.
    pub(crate) fn is_spent(&self, limits: &EpochLimits) -> bool {
        let opened = self.opened_blocks.load(Ordering::Relaxed);
        self.sealing.blocks().max(opened) >= limits.blocks
            || self.records.load(Ordering::Relaxed) >= limits.records
    }
}

/// What stays the same through all epochs.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) suite: Suite,
    pub(crate) role: Role,
    pub(crate) limits: EpochLimits,
}

/// Where a session stands in its chain of epochs.
#[derive(Debug)]
pub(crate) struct Epochs {
    chain: Chain,
    current: Arc<Epoch>,
    /// Since when the current one is known to be in use; the first reading of the clock after it began sets it.
    since: Option<Instant>,
    /// Those before that still take exchanges, and when they ended as far as is known.
    previous: Vec<(Arc<Epoch>, Option<Instant>)>,
    /// Those after, derived because a record claimed to be of one of them.
    candidates: VecDeque<(Chain, Arc<Epoch>)>,
    /// The newest of which the peer was heard.
    heard: u8,
    /// Those that were left last, whose links to the next are not cut yet.
    left: VecDeque<Weak<Epoch>>,
}

impl Epochs {
    /// Epoch 0; `sealing` gives the numbers to its sealing key.
    pub(crate) fn first(setting: &Setting, chain: Chain, window: u32) -> Result<Self, Error> {
        let sealing = |key, iv| match setting.role {
            Role::Initiator => SealingKey::counting(key, iv),
            Role::Responder => SealingKey::claiming(key, iv, window),
        };
        let current = new_epoch(setting, &chain, (0, [0, 0]), sealing)?;
        Ok(Self::at(chain, current, None, 0))
    }

    fn at(chain: Chain, current: Arc<Epoch>, since: Option<Instant>, heard: u8) -> Self {
        Self {
            chain,
            current,
            since,
            previous: Vec::new(),
            candidates: VecDeque::new(),
            heard,
            left: VecDeque::new(),
        }
    }

    pub(crate) fn current(&self) -> &Arc<Epoch> {
        &self.current
    }

    /// Takes note of the time: goes on to the next epoch if this one has done its share, drops those whose overlap is
    /// over.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] if the last epoch has done its share, [`Error::Crypto`] if the engine fails.
    pub(crate) fn tick(&mut self, setting: &Setting, now: Instant) -> Result<(), Error> {
        let age = now.saturating_duration_since(*self.since.get_or_insert(now));
        if self.current.is_spent(&setting.limits) || age >= setting.limits.age {
            let from = self.current.number;
            self.advance(setting, from)?;
            if self.current.number != from {
                self.since = Some(now);
            }
        }
        self.drop_older(setting.limits.overlap, now);
        Ok(())
    }

    /// An epoch ends with the first record of a later one that was opened here: until then the peer may not know of it.
    fn drop_older(&mut self, overlap: Duration, now: Instant) {
        if self.previous.is_empty() {
            return;
        }
        let heard = self.heard;
        self.previous.retain_mut(|(epoch, ended)| {
            if epoch.number < heard {
                now.saturating_duration_since(*ended.get_or_insert(now)) < overlap
            } else {
                true
            }
        });
    }

    /// Goes on from epoch `from` to the next, if that has not happened yet and the peer is not too far behind.
    pub(crate) fn advance(&mut self, setting: &Setting, from: u8) -> Result<(), Error> {
        let is_far_ahead = self.current.number.saturating_sub(self.heard) >= AHEAD;
        if self.current.number != from || (is_far_ahead && from < u8::MAX) {
            return Ok(());
        }
        let number = from.checked_add(1).ok_or(Error::Exhausted)?;
        self.candidate(setting, number)?;
        self.enter(number);
        Ok(())
    }

    /// The epoch that a record may be of, whatever its stream: the current one, one whose overlap lasts, or one of the next.
    pub(crate) fn find(&mut self, setting: &Setting, number: u8) -> Result<Arc<Epoch>, Error> {
        if number == self.current.number {
            return Ok(Arc::clone(&self.current));
        }
        let previous = self
            .previous
            .iter()
            .find(|(epoch, _)| epoch.number == number);
        match previous {
            Some((epoch, _)) => Ok(Arc::clone(epoch)),
            None => self.candidate(setting, number),
        }
    }

    /// One of the next epochs, if `number` is the number of one. Each is derived once, however often it is asked for, and
    /// not entered.
    pub(crate) fn candidate(&mut self, setting: &Setting, number: u8) -> Result<Arc<Epoch>, Error> {
        let distance = number.saturating_sub(self.current.number);
        if !(1..=AHEAD).contains(&distance) {
            return Err(Error::Open);
        }
        while self.candidates.len() < usize::from(distance) {
            let (chain, epoch) = match self.candidates.back() {
                Some((chain, epoch)) => (chain, epoch),
                None => (&self.chain, &self.current),
            };
            let chain = chain.next(&*setting.engine)?;
            let successor = |key, iv| epoch.sealing.successor(key, iv);
            let next = new_epoch(setting, &chain, (epoch.number + 1, [0, 0]), successor)?;
            self.candidates.push_back((chain, next));
        }
        let found = self.candidates.get(usize::from(distance) - 1);
        found.map(|(_, epoch)| Arc::clone(epoch)).ok_or(Error::Open)
    }

    /// Takes note that a record of epoch `number` was authentic, and enters it if it is one of the next.
    pub(crate) fn hear(&mut self, number: u8) {
        self.heard = self.heard.max(number);
        self.enter(number);
    }

    fn enter(&mut self, number: u8) {
        while self.current.number < number
            && let Some((chain, epoch)) = self.candidates.pop_front()
        {
            *self.current.newer.write() = Some(Arc::clone(&epoch));
            let ended = std::mem::replace(&mut self.current, epoch);
            self.left.push_back(Arc::downgrade(&ended));
            self.previous.push((ended, None));
            self.cut();
            self.chain = chain;
            self.since = None;
        }
    }

    /// Lets go of what is further behind than it may be.
    fn cut(&mut self) {
        if self.previous.len() > BEHIND {
            self.previous.remove(0);
        }
        if self.left.len() > BEHIND
            && let Some(epoch) = self.left.pop_front().and_then(|left| left.upgrade())
        {
            *epoch.newer.write() = None;
        }
    }

    /// Puts everything away but what can't be derived again, if no stream needs the expanded keys.
    #[expect(clippy::result_large_err, reason = "it is put back where it came from")]
    pub(crate) fn park(mut self, limits: &EpochLimits, now: Instant) -> Result<Parked, Self> {
        self.drop_older(limits.overlap, now);
        if !self.previous.is_empty() {
            return Err(self);
        }
        self.candidates.clear();
        let epoch = match Arc::try_unwrap(self.current) {
            Ok(epoch) => epoch,
            Err(current) => return Err(Self::at(self.chain, current, self.since, self.heard)),
        };
        let sealing = match Arc::try_unwrap(epoch.sealing) {
            Ok(sealing) => sealing,
            Err(sealing) => {
                let current = Arc::new(Epoch { sealing, ..epoch });
                return Err(Self::at(self.chain, current, self.since, self.heard));
            }
        };
        Ok(Parked {
            chain: self.chain,
            since: self.since,
            heard: self.heard,
            number: epoch.number,
            sealing: sealing.park(),
            did: [epoch.records, epoch.opened_blocks].map(AtomicU64::into_inner),
        })
    }
}

/// A session's epochs without expanded keys.
#[derive(Debug)]
pub(crate) struct Parked {
    chain: Chain,
    since: Option<Instant>,
    heard: u8,
    number: u8,
    sealing: ParkedKey,
    did: [u64; 2],
}

impl Parked {
    pub(crate) fn unpark(self, setting: &Setting) -> Result<Epochs, Error> {
        let sealing = |key, iv| self.sealing.unpark(key, iv);
        let current = new_epoch(setting, &self.chain, (self.number, self.did), sealing)?;
        Ok(Epochs::at(self.chain, current, self.since, self.heard))
    }
}

fn new_epoch(
    setting: &Setting,
    chain: &Chain,
    (number, [records, opened_blocks]): (u8, [u64; 2]),
    sealing: impl FnOnce(mesh_crypto::aead::AeadKey, [u8; 12]) -> SealingKey,
) -> Result<Arc<Epoch>, Error> {
    let keys = chain.keys(&*setting.engine, setting.suite, setting.role)?;
    Ok(Arc::new(Epoch {
        number,
        sealing: Arc::new(sealing(keys.sealing, keys.sealing_iv)),
        sealing_mac: keys.sealing_mac,
        opening: keys.opening,
        opening_mac: keys.opening_mac,
        opened_blocks: AtomicU64::new(opened_blocks),
        records: AtomicU64::new(records),
        newer: RwLock::new(None),
    }))
}

/// How many epochs a side may be ahead of what it heard of the other: enough for records that overtake each other, few
/// enough that a forged number costs little.
const AHEAD: u8 = 4;
/// How many epochs behind the newest are kept at the most, for exchanges that begin late and for streams whose reader is
/// slow: a tebibyte, or sixteen hours, by the limits that are preset.
const BEHIND: usize = 16;
