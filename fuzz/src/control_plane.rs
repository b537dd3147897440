//! What a control plane may say over a stream, and when.
//!
//! What it takes is private in mesh-discovery, so this is a part of `crate::xds`, where the files of it are included.

use std::time::Duration;
use std::time::Instant;

use mesh_discovery::MAX_ENDPOINTS_PER_SERVICE;

use super::follower::Assignments;
use super::follower::Clusters;
use super::follower::Follower;
use super::follower::Report;
use super::ignored::Ignored;
use super::topic::Kind as _;
use super::topic::Verdict;
use super::wire::Writer;

/// The first byte tells the variant, then each one a step: a response, time that passes, a stream that ends, a service that
/// is wanted or not any more. Whatever comes, what is reported is of a service that is wanted and can be used, and a
/// response that comes twice is refused once.
pub fn xds_stream(data: &[u8]) {
    let mut rest = Bytes(data);
    let is_delta = rest.byte() & 1 == 1;
    let mut stream = Stream::new(is_delta);
    while !rest.0.is_empty() {
        let step = rest.byte();
        let detail = step >> 3;
        match step & 7 {
            0 => stream.wait(Duration::from_secs(detail.into())),
            1 => {
                stream.follower.end_stream(detail & 1 == 1);
                stream.begin(detail & 2 == 2);
            }
            2 => stream.toggle(usize::from(detail & 1)),
            3 => {
                let length = usize::from(rest.byte()) << 8 | usize::from(rest.byte());
                stream.take(rest.take(length));
            }
            _ => stream.take(&response(is_delta, step, &mut rest)),
        }
    }
}

/// A response whose outer form is right. Bits tell whether it is of assignments, and how many resources it has.
fn response(is_delta: bool, step: u8, rest: &mut Bytes<'_>) -> Vec<u8> {
    let type_url = match step & 8 {
        0 => Clusters::TYPE_URL,
        _ => Assignments::TYPE_URL,
    };
    let version = (rest.byte() & 3).to_string();
    let mut writer = Writer::default();
    writer.text(1, &version);
    writer.text(4, type_url);
    writer.text(5, "nonce");
    for _ in 0..step >> 4 & 3 {
        let name = rest.byte();
        let own = NAMES[usize::from(name & 3)];
        let length = usize::from(rest.byte());
        let content = rest.take(length);
        let any = |any: &mut Writer| {
            let mut resource = Writer::default();
            resource.text(1, own);
            let resource = [&*resource.finish(), content].concat();
            any.text(1, type_url);
            any.bytes(2, &resource);
        };
        if !is_delta {
            writer.message(2, any);
            continue;
        }
        writer.message(2, |resource| {
            resource.text(1, &version);
            if name & 4 == 0 {
                resource.message(2, any);
            }
            resource.text(3, own);
        });
    }
    if step & 64 != 0 {
        writer.text(6, NAMES[usize::from(rest.byte() & 3)]);
    }
    writer.finish()
}

struct Stream {
    is_delta: bool,
    now: Instant,
    follower: Follower,
    ignored: Ignored,
    is_wanted: [bool; 2],
}

impl Stream {
    #[expect(clippy::disallowed_methods, reason = "only what is added to it counts")]
    fn new(is_delta: bool) -> Self {
        let mut stream = Self {
            is_delta,
            now: Instant::now(),
            follower: Follower::new(is_delta, Duration::from_secs(15)),
            ignored: Ignored::default(),
            is_wanted: [false; 2],
        };
        stream.follower.begin_stream(false);
        stream.toggle(0);
        stream.toggle(1);
        stream
    }

    fn toggle(&mut self, service: usize) {
        self.is_wanted[service] = !self.is_wanted[service];
        if self.is_wanted[service] {
            self.follower.want(NAMES[service]);
        } else {
            self.follower.unwant(NAMES[service]);
        }
        self.check();
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.follower.expire(self.now);
        assert!(self.follower.next_due().is_none_or(|due| due > self.now));
        if self.follower.needs_stream() {
            self.follower.end_stream(false);
            self.begin(true);
        }
        self.check();
    }

    fn begin(&mut self, is_same_server: bool) {
        self.follower.begin_stream(is_same_server);
        assert!(!self.follower.needs_stream());
        self.check();
    }

    fn take(&mut self, bytes: &[u8]) {
        let first = self.follower.take(self.now, bytes, &mut self.ignored);
        match first {
            Ok(verdict) => {
                let has_answer = verdict != Verdict::RefusedAgain;
                assert!(self.follower.has_request() || !has_answer);
                self.check();
                let again = self.follower.take(self.now, bytes, &mut self.ignored);
                let is_refused = again != Ok(Verdict::Accepted);
                assert_eq!(is_refused, verdict != Verdict::Accepted, "{again:?}");
                assert_ne!(again, Ok(Verdict::Refused));
                self.check();
            }
            Err(wrong) => {
                let line = wrong.to_string();
                assert!(
                    line.len() < 4000 && !line.contains(char::is_control),
                    "{line}"
                );
                self.follower.end_stream(true);
                self.begin(true);
            }
        }
        assert!(self.ignored.list().len() <= 257);
    }

    /// All that is to be said can be said.
    fn check(&mut self) {
        let mut count = 0;
        while let Some(request) = self.follower.next_request(self.now) {
            count += 1;
            assert!(count <= 2, "one for each type");
            let refusal = request.refusal.as_deref().unwrap_or_default();
            assert!(refusal.chars().count() <= 4096, "{refusal}");
            assert!(!request.encode(None).is_empty(), "{}", self.is_delta);
        }
        assert!(!self.follower.has_request());
        for (name, report) in self.follower.take_reports() {
            let service = NAMES.iter().position(|known| *known == name);
            assert!(service.is_some_and(|service| self.is_wanted.get(service) == Some(&true)));
            match report {
                Report::Found(assignment) => {
                    let list = &assignment.endpoints;
                    assert!(list.len() <= MAX_ENDPOINTS_PER_SERVICE, "{}", list.len());
                    assert!(list.iter().all(|endpoint| endpoint.port > 0));
                    assert!(list.iter().all(|endpoint| endpoint.host.ip().is_some()));
                }
                Report::Refused(refusal) => {
                    let line = refusal.to_string();
                    assert!(
                        line.len() < 4000 && !line.contains(char::is_control),
                        "{line}"
                    );
                }
                Report::Absent | Report::Confirmed => {}
            }
        }
        assert_eq!(self.follower.is_idle(), self.is_wanted == [false; 2]);
    }
}

/// The input, from where it is read on; zeros stand behind its end.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// The two services, and what their assignments may be called besides.
const NAMES: [&str; 4] = ["a", "b", "c", ""];
