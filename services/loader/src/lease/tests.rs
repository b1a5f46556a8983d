use super::*;

const TTL: Duration = Duration::from_secs(10);
const LIMITS: LeaseLimits = LeaseLimits {
    total: 3,
    per_peer: 2,
    time_to_live: TTL,
};
const OWNER: Peer = Peer::Process { uid: 7, pid: 70 };

fn token(n: u8) -> Token {
    Token::from_bytes(&[n; crate::token::TOKEN_BYTES]).unwrap()
}

fn model() -> ModelId {
    ModelId::parse("m").unwrap()
}

fn table() -> (LeaseTable<()>, Instant) {
    (LeaseTable::new(LIMITS), Instant::now())
}

#[test]
fn a_token_is_redeemed_once() {
    let (mut table, now) = table();
    let id = table.offer(token(1), OWNER, model(), (), now).unwrap();
    assert_eq!(table.redeem(&token(1), 7).unwrap().0, id);
    assert_eq!(
        table.redeem(&token(1), 7).unwrap_err(),
        NotRedeemed::Unknown
    );
    assert!(table.begin_read(&token(1)).is_none());
    assert!(table.release(&token(1)).is_none());
    assert!(table.expire(now + TTL * 100).is_empty());
    assert!(table.disconnect(id).is_some());
    assert!(table.disconnect(id).is_none());
}

#[test]
fn another_user_cannot_take_it_and_cannot_spoil_it() {
    let (mut table, now) = table();
    table.offer(token(1), OWNER, model(), (), now).unwrap();
    assert_eq!(
        table.redeem(&token(1), 8).unwrap_err(),
        NotRedeemed::OtherUser
    );
    assert!(table.redeem(&token(1), 7).is_ok());
}

#[test]
fn a_number_alone_ends_no_offer() {
    let (mut table, now) = table();
    let id = table.offer(token(1), OWNER, model(), (), now).unwrap();
    assert!(table.disconnect(id).is_none());
    assert_eq!(table.count(&model()), 1);
}

#[test]
fn limits() {
    let (mut table, now) = table();
    let other = Peer::Host("10.0.0.1".parse().unwrap());
    table.offer(token(1), OWNER, model(), (), now).unwrap();
    table.offer(token(2), OWNER, model(), (), now).unwrap();
    assert_eq!(
        table.offer(token(3), OWNER, model(), (), now),
        Err(Full::PerPeer { limit: 2 })
    );
    table.offer(token(3), other, model(), (), now).unwrap();
    assert_eq!(
        table.offer(token(4), other, model(), (), now),
        Err(Full::Total { limit: 3 })
    );
    assert_eq!(table.expire(now + TTL).len(), 3);
    table.offer(token(4), OWNER, model(), (), now).unwrap();
}

/// What can happen to a table with one token.
#[derive(Clone, Copy, Debug)]
enum Event {
    Offer,
    Redeem,
    Release,
    BeginRead,
    EndRead,
    Disconnect,
    HalfTtl,
}

const EVENTS: [Event; 7] = [
    Event::Offer,
    Event::Redeem,
    Event::Release,
    Event::BeginRead,
    Event::EndRead,
    Event::Disconnect,
    Event::HalfTtl,
];

/// The same rules written down a second time, as plainly as possible, for one token.
#[derive(Clone, Copy, Debug, Default)]
struct Naive {
    offered: bool,
    held: u32,
    /// Halves of the time to live since the last use.
    idle: u32,
    readers: u32,
}

impl Naive {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Offer if !self.offered && self.held < 2 => {
                (self.offered, self.idle, self.readers) = (true, 0, 0)
            }
            Event::Redeem if self.offered => (self.offered, self.held) = (false, self.held + 1),
            Event::Release => self.offered = false,
            Event::BeginRead if self.offered => self.readers += 1,
            Event::EndRead if self.offered && self.readers > 0 => {
                (self.readers, self.idle) = (self.readers - 1, 0)
            }
            Event::Disconnect if self.held > 0 => self.held -= 1,
            Event::HalfTtl => {
                self.idle += 1;
                self.offered &= self.readers > 0 || self.idle < 2;
            }
            _ => {}
        }
    }
}

/// Drives the real table like [`Naive`].
struct Driven {
    table: LeaseTable<()>,
    now: Instant,
    offered: Option<LeaseId>,
    held: Vec<LeaseId>,
    readers: u32,
}

impl Driven {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Offer if self.offered.is_none() => {
                self.offered = self
                    .table
                    .offer(token(1), OWNER, model(), (), self.now)
                    .ok();
                self.readers = 0;
            }
            Event::Offer => {}
            Event::Redeem => {
                if let Ok((id, _)) = self.table.redeem(&token(1), 7) {
                    self.held.push(id);
                    self.offered = None;
                }
            }
            Event::Release => {
                self.table.release(&token(1));
                self.offered = None;
            }
            Event::BeginRead => {
                self.readers += u32::from(self.table.begin_read(&token(1)).is_some())
            }
            // Only readers of the present offer: the table is told each reader's lease by number.
            Event::EndRead => {
                if let Some(id) = self.offered.filter(|_| self.readers > 0) {
                    self.table.end_read(id, self.now);
                    self.readers -= 1;
                }
            }
            Event::Disconnect => {
                if let Some(id) = self.held.pop() {
                    assert!(self.table.disconnect(id).is_some());
                }
            }
            Event::HalfTtl => {
                self.now += TTL / 2;
                for (id, _) in self.table.expire(self.now) {
                    assert_eq!(Some(id), self.offered);
                    self.offered = None;
                }
            }
        }
    }

    fn check(&self, naive: &Naive, trail: &[Event]) {
        let expected = naive.held as usize + usize::from(naive.offered);
        assert_eq!(self.table.len(), expected, "{trail:?}");
        assert_eq!(self.table.count(&model()), expected, "{trail:?}");
        assert_eq!(
            self.table.tokens.len(),
            usize::from(naive.offered),
            "{trail:?}"
        );
        assert!(
            self.held.iter().all(|id| self.table.held(*id).is_some()),
            "{trail:?}"
        );
        let due = naive.offered && naive.readers == 0;
        assert_eq!(self.table.next_expiry().is_some(), due, "{trail:?}");
    }
}

/// Every order of seven kinds of event, six deep: 117,649 histories.
#[test]
fn every_order_of_events() {
    const DEPTH: u32 = 6;
    let kinds = EVENTS.len();
    let start = Instant::now();
    for history in 0..kinds.pow(DEPTH) {
        let mut naive = Naive::default();
        let mut driven = Driven {
            table: LeaseTable::new(LIMITS),
            now: start,
            offered: None,
            held: Vec::new(),
            readers: 0,
        };
        let mut trail = Vec::new();
        let mut rest = history;
        for _ in 0..DEPTH {
            let event = EVENTS[rest % kinds];
            rest /= kinds;
            trail.push(event);
            naive.apply(event);
            driven.apply(event);
            driven.check(&naive, &trail);
        }
    }
}
