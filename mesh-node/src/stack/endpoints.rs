//! The endpoints of one service as the request path sees them: an immutable list, swapped whole when discovery changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arc_swap::ArcSwap;
use http::Request;
use http::Response;
use mesh_discovery::Standing;
use mesh_discovery::Watch;
use mesh_resilience::balance::Endpoint as Balanced;
use mesh_resilience::balance::EndpointState;
use mesh_resilience::balance::InFlight as Load;
use mesh_resilience::balance::Outliers;
use mesh_resilience::balance::Picker;
use mesh_resilience::balance::Policy;
use mesh_resilience::classify::Outcome;
use mesh_resilience::random::SplitMix64;
use mesh_resilience::timeout::Deadline;
use mesh_transport::Body;
use mesh_transport::Error;
use mesh_transport::peer::Dialer;
use mesh_transport::peer::PeerPool;
use mesh_transport::peer::Unsent;
use mesh_transport::session::SessionClient;
use mesh_transport::session::SessionPool;
use mesh_transport::tls::LivePeer;
use mesh_transport::tls::PeerId;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::client::TlsStream;

use crate::adapt::peer_key::PeerJudge;
use crate::adapt::peer_key::Pin;
use crate::service_token::TokenCheck;
use crate::stack::now;

/// The endpoints of one service.
#[derive(Debug)]
pub(crate) struct Endpoints {
    service: Arc<str>,
    links: Links,
    outliers: Arc<Outliers>,
    random: Arc<SplitMix64>,
    current: ArcSwap<List>,
    /// Whether the source has answered yet.
    is_answered: AtomicBool,
    first_answer: Notify,
}

/// How connections to endpoints are made.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(crate) dialer: Dialer,
    /// Where calls are sealed end to end.
    pub(crate) sessions: Option<SessionClient>,
    /// What the peer must show in a handshake, where tokens are configured.
    pub(crate) handshake_token: Option<Arc<TokenCheck>>,
    /// The identity expected of an endpoint for which discovery names none.
    pub(crate) expected: PeerId,
}

/// One list of endpoints.
#[derive(Debug)]
pub(crate) struct List {
    members: Vec<Slot>,
    picker: Picker,
    outliers: Arc<Outliers>,
    random: Arc<SplitMix64>,
}

/// A member's place in a list.
#[derive(Clone, Debug)]
struct Slot(Arc<Member>);

/// One endpoint with its connections and what is known of how it does.
#[derive(Debug)]
pub(crate) struct Member {
    endpoint: Arc<mesh_discovery::Endpoint>,
    service: Arc<str>,
    state: Arc<EndpointState>,
    link: Link,
}

#[derive(Debug)]
enum Link {
    Mtls(Box<PeerPool>),
    Hybrid(Box<SessionPool>),
}

/// A call to one endpoint, under way until this is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    list: Arc<List>,
    index: usize,
    deadline: Option<Deadline>,
    is_recorded: bool,
    _load: Load,
}

impl Endpoints {
    /// The endpoints that `watch` shows now; [`Endpoints::follow`] keeps them current.
    pub(crate) fn new(
        service: Arc<str>,
        links: Links,
        parts: (Arc<Outliers>, Arc<SplitMix64>),
        watch: &Watch,
    ) -> Self {
        let (outliers, random) = parts;
        let empty = List::new(Vec::new(), Arc::clone(&outliers), Arc::clone(&random));
        let endpoints = Self {
            service,
            links,
            outliers,
            random,
            current: ArcSwap::from_pointee(empty),
            is_answered: AtomicBool::new(false),
            first_answer: Notify::new(),
        };
        endpoints.update(&watch.current());
        endpoints
    }

    /// Takes over every change until the source is gone.
    pub(crate) async fn follow(&self, mut watch: Watch) {
        while let Ok(changed) = watch.changed().await {
            self.update(changed);
        }
    }

    fn update(&self, found: &mesh_discovery::Endpoints) {
        let before = self.current.load_full();
        let known: HashMap<*const mesh_discovery::Endpoint, &Slot> = before
            .members
            .iter()
            .map(|slot| (Arc::as_ptr(&slot.0.endpoint), slot))
            .collect();
        let member =
            |endpoint: &Arc<mesh_discovery::Endpoint>| match known.get(&Arc::as_ptr(endpoint)) {
                Some(slot) => Slot::clone(slot),
                None => Slot(Arc::new(self.links.member(endpoint, &self.service, now()))),
            };
        let members = found.iter().map(member).collect();
        let list = List::new(
            members,
            Arc::clone(&self.outliers),
            Arc::clone(&self.random),
        );
        self.current.store(Arc::new(list));
        if found.standing() != Standing::Pending {
            self.is_answered.store(true, Ordering::Release);
            self.first_answer.notify_waiters();
        }
    }

    /// Whether the source has answered yet; before that no endpoint is known, and it says nothing that there is none.
    pub(crate) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Acquire)
    }

    /// Waits for the first answer of the source.
    pub(crate) async fn answered(&self) {
        // What is notified from here on is not missed.
        let first = self.first_answer.notified();
        if !self.is_answered() {
            first.await;
        }
    }

    /// Tells those that this node has sessions with that nothing more comes.
    pub(crate) async fn close(&self) {
        for member in &self.current().members {
            if let Link::Hybrid(pool) = &member.0.link {
                pool.close().await;
            }
        }
    }

    /// The list now.
    pub(crate) fn current(&self) -> Arc<List> {
        self.current.load_full()
    }
}

impl Links {
    fn member(
        &self,
        endpoint: &Arc<mesh_discovery::Endpoint>,
        service: &Arc<str>,
        now: Instant,
    ) -> Member {
        let expected = endpoint
            .spiffe_id
            .as_deref()
            .map_or_else(|| self.expected.clone(), PeerId::new);
        let pool = self.dialer.pool(endpoint.to_string(), expected.clone());
        let link = match &self.sessions {
            None => Link::Mtls(Box::new(pool)),
            Some(client) => {
                let pin = if endpoint.source.is_none() {
                    Pin::Enough
                } else {
                    Pin::Besides
                };
                let pinned = endpoint.public_key_fingerprint.clone().map(pin);
                let (tls, token) = (Arc::clone(self.dialer.tls()), self.handshake_token.clone());
                Link::Hybrid(Box::new(client.pool(
                    pool,
                    Arc::new(PeerJudge::only(tls, expected, pinned, token)),
                )))
            }
        };
        Member {
            endpoint: Arc::clone(endpoint),
            service: Arc::clone(service),
            state: Arc::new(EndpointState::new(now)),
            link,
        }
    }
}

impl List {
    fn new(members: Vec<Slot>, outliers: Arc<Outliers>, random: Arc<SplitMix64>) -> Self {
        let picker = Picker::new(Policy::default(), &members);
        Self {
            members,
            picker,
            outliers,
            random,
        }
    }

    /// An endpoint to call, other than those `tried` where there is another.
    ///
    /// A call that is dropped after `deadline` without a word from the endpoint counts as its failure.
    pub(crate) fn pick(
        self: &Arc<Self>,
        tried: &[usize],
        deadline: Option<Deadline>,
    ) -> Option<(Arc<Member>, InFlight)> {
        let index = self
            .picker
            .pick(&self.members, tried, &*self.random, now())?;
        let Slot(member) = self.members.get(index)?;
        let in_flight = InFlight {
            list: Arc::clone(self),
            index,
            deadline,
            is_recorded: false,
            _load: member.state.begin(),
        };
        Some((Arc::clone(member), in_flight))
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// How many endpoints are not ejected.
    pub(crate) fn healthy(&self) -> usize {
        self.members
            .iter()
            .filter(|slot| !slot.0.state.is_ejected(now()))
            .count()
    }
}

impl Balanced for Slot {
    fn state(&self) -> &EndpointState {
        &self.0.state
    }

    fn weight(&self) -> u32 {
        u32::from(self.0.endpoint.weight.get())
    }
}

impl Member {
    /// Host and port.
    pub(crate) fn destination(&self) -> &str {
        self.pool().destination()
    }

    /// Sends one request.
    pub(crate) async fn exchange(&self, request: Request<Body>) -> Result<Response<Body>, Unsent> {
        match &self.link {
            Link::Hybrid(pool) => pool.send(&self.service, request).await,
            Link::Mtls(pool) => pool.send(request).await,
        }
    }

    /// A connection of its own, for bytes that are not HTTP.
    pub(crate) async fn stream(&self) -> Result<(TlsStream<TcpStream>, LivePeer), Error> {
        self.pool().stream().await
    }

    fn pool(&self) -> &PeerPool {
        match &self.link {
            Link::Mtls(pool) => pool,
            Link::Hybrid(pool) => pool.connections(),
        }
    }
}

impl InFlight {
    /// Which one of the list it is.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Takes in how the call went; too many failures in a row eject the endpoint for a while.
    pub(crate) fn record(&mut self, outcome: Outcome) {
        self.is_recorded = true;
        if let Some(ejected) =
            self.list
                .outliers
                .record(&self.list.members, self.index, outcome, now())
        {
            let endpoint = self
                .list
                .members
                .get(self.index)
                .map(|slot| slot.0.destination());
            tracing::warn!(
                endpoint,
                ?ejected,
                "endpoint ejected after repeated failures"
            );
        }
    }
}

impl Drop for InFlight {
    /// An endpoint that takes calls and never answers must not go on drawing them.
    fn drop(&mut self) {
        if !self.is_recorded
            && self
                .deadline
                .is_some_and(|deadline| deadline.is_past(now()))
        {
            self.record(Outcome::Failure);
        }
    }
}
