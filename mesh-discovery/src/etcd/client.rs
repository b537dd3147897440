//! Calls to whichever member of etcd answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::StreamExt as _;
use futures_util::TryStreamExt as _;
use futures_util::stream;
use http::uri::PathAndQuery;
use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::Request;
use tonic::Status;
use tonic::client::Grpc;
use tonic::metadata::Ascii;
use tonic::metadata::MetadataValue;
use tonic_prost::ProstCodec;

use super::Config;
use super::Credentials;
use super::Error;
use super::error::wants_login;
use super::messages::AuthenticateRequest;
use super::messages::Call;
use super::messages::WatchRequest;
use super::messages::WatchResponse;
use crate::grpc::Channel;
use crate::grpc::Dialer;
use crate::grpc::KeepAlive;

/// Gives random numbers; they spread many clients over members and time.
pub type RandomFor = dyn Fn() -> u64 + Send + Sync;

/// Talks to the members of one etcd. Cheap to clone; clones share one connection.
///
/// One member is talked to at a time. When it can't be reached, can't answer in time or has no leader, it is the next
/// one's turn. Nothing is spawned: the connection is driven by the calls that wait on it.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    credentials: Option<Credentials>,
    random: Arc<RandomFor>,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channel: Option<Channel>,
    token: Token,
    /// How many tokens there were.
    tokens: u64,
}

#[derive(Default)]
enum Token {
    /// To be asked for, where there are credentials.
    #[default]
    Missing,
    /// etcd asks for none.
    Unneeded,
    Known(MetadataValue<Ascii>),
}

/// A connection, and what to show on it.
struct Link {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    /// Which of the tokens that is.
    tokens: u64,
}

impl Client {
    /// A client that spreads its work by `random`. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// [`Error::Config`].
    pub fn new(config: &Config, random: Arc<RandomFor>) -> Result<Self, Error> {
        let dialer = Dialer::new(
            &config.endpoints,
            config.tls.as_ref(),
            config.connect_timeout,
            KEEP_ALIVE,
        );
        let dialer = dialer.map_err(|source| Error::Config {
            source: source.into(),
        })?;
        dialer.begin_at(random());
        Ok(Self(Arc::new(Inner {
            dialer,
            credentials: config.credentials.clone(),
            random,
            timeout: config.timeout,
            state: Mutex::default(),
        })))
    }

    pub(super) fn random(&self) -> u64 {
        (self.0.random)()
    }

    /// Asks, and asks each other member where the first can't answer.
    pub(super) async fn call<C: Call + Clone>(&self, request: C) -> Result<C::Answer, Error> {
        let mut may_log_in = true;
        let mut tries = self.0.dialer.len() + 1;
        loop {
            let error = match self.try_call(request.clone(), &mut may_log_in).await {
                Ok(Some(answer)) => return Ok(answer),
                // The token was stale.
                Ok(None) => continue,
                Err(error) => error,
            };
            tries -= 1;
            if tries == 0 || !error.is_of_the_member() {
                return Err(error);
            }
        }
    }

    /// One call; nothing where it may go well with another token.
    async fn try_call<C: Call>(
        &self,
        request: C,
        may_log_in: &mut bool,
    ) -> Result<Option<C::Answer>, Error> {
        let link = self.link().await?;
        match self.unary(&link, request).await {
            Err(Failure::Status(status)) if *may_log_in && wants_login(&status) => {
                *may_log_in = false;
                self.forget_token(link.tokens).await;
                Ok(None)
            }
            Ok(answer) => Ok(Some(answer)),
            Err(failure) => Err(self.explain(failure, &link.channel, C::PATH).await),
        }
    }

    /// Opens a stream of watches that carries `requests`. It ends with an error only.
    pub(super) fn watch(
        &self,
        mut requests: mpsc::Receiver<WatchRequest>,
    ) -> impl Stream<Item = Result<WatchResponse, Error>> + Send + use<> {
        let client = self.clone();
        let requests = stream::poll_fn(move |cx| requests.poll_recv(cx));
        let opening = async move {
            let link = client.link().await?;
            let mut request = link.request(requests);
            // Else a member that is cut off from the others keeps the stream open and says nothing.
            let has_leader = MetadataValue::from_static("true");
            request.metadata_mut().insert("hasleader", has_leader);
            let path = PathAndQuery::from_static(WatchRequest::PATH);
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            let opened = link.grpc().streaming(request, path, codec).await;
            let watch = Watching { client, link };
            let messages = match opened {
                Ok(messages) => messages.into_inner(),
                Err(status) => return Err(watch.explain(status).await),
            };
            let messages = stream::try_unfold((messages, watch), |(mut messages, watch)| async {
                match messages.message().await {
                    Ok(Some(message)) => Ok(Some((message, (messages, watch)))),
                    Ok(None) => {
                        let status = Status::unavailable("the stream of watches ended");
                        Err(watch.explain(status).await)
                    }
                    Err(status) => Err(watch.explain(status).await),
                }
            });
            Ok(messages)
        };
        stream::once(opening).try_flatten().boxed()
    }

    /// The connection there is, or a new one.
    async fn link(&self) -> Result<Link, Error> {
        let mut state = self.0.state.lock().await;
        let channel = match state.channel.take() {
            Some(channel) if !channel.is_closed() => channel,
            _ => self.connect().await?,
        };
        state.channel = Some(channel.clone());
        let mut link = Link {
            channel,
            token: None,
            tokens: state.tokens,
        };
        match (&self.0.credentials, &state.token) {
            (None, _) | (_, Token::Unneeded) => {}
            (Some(_), Token::Known(token)) => link.token = Some(token.clone()),
            (Some(credentials), Token::Missing) => {
                let token = self.log_in(&link, credentials).await;
                if let Err(error) = &token
                    && error.is_of_the_member()
                {
                    state.channel = None;
                    self.0.dialer.pass_over(link.channel.server());
                }
                state.token = token?;
                state.tokens += 1;
                link.tokens = state.tokens;
                if let Token::Known(token) = &state.token {
                    link.token = Some(token.clone());
                }
            }
        }
        Ok(link)
    }

    /// Connects to the first member that takes it.
    async fn connect(&self) -> Result<Channel, Error> {
        let mut last = None;
        for _ in 0..self.0.dialer.len() {
            match self.0.dialer.connect().await {
                Ok(channel) => return Ok(channel),
                Err(error) => last = Some(error),
            }
        }
        let source = last.map_or_else(|| "there is none".into(), Into::into);
        Err(Error::Unreachable { source })
    }

    async fn log_in(&self, link: &Link, credentials: &Credentials) -> Result<Token, Error> {
        let password = (credentials.password)().map_err(|source| Error::Password {
            source: source.into(),
        })?;
        let request = AuthenticateRequest {
            name: credentials.user.clone(),
            password: password.trim_end_matches(['\r', '\n']).to_owned(),
        };
        let server = link.channel.server();
        match self.unary(link, request).await {
            Ok(answer) => {
                let token = MetadataValue::try_from(answer.token);
                let mut token = token.ok().ok_or(Error::Unexpected {
                    what: "a token that can't be sent back",
                })?;
                token.set_sensitive(true);
                Ok(Token::Known(token))
            }
            Err(Failure::Status(status))
                if status.code() == Code::FailedPrecondition
                    && status.message().contains("authentication is not enabled") =>
            {
                tracing::warn!(%server, "etcd asks for no password, so anybody may write into it");
                Ok(Token::Unneeded)
            }
            Err(Failure::Status(status)) => {
                Err(Error::of(&status, server, AuthenticateRequest::PATH))
            }
            Err(Failure::Timeout) => Err(self.timeout(server, AuthenticateRequest::PATH)),
        }
    }

    /// `LeaseKeepAlive` is a stream in both directions; with one question it reads the same on the wire.
    async fn unary<C: Call>(&self, link: &Link, request: C) -> Result<C::Answer, Failure> {
        let mut grpc = link.grpc();
        let path = PathAndQuery::from_static(C::PATH);
        let codec = ProstCodec::<C, C::Answer>::default();
        let asking = grpc.unary(link.request(request), path, codec);
        match tokio::time::timeout(self.0.timeout, asking).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Failure::Status(status)),
            Err(_elapsed) => Err(Failure::Timeout),
        }
    }

    /// What went wrong; where it is of the member, it is the next one's turn.
    async fn explain(&self, failure: Failure, channel: &Channel, path: &'static str) -> Error {
        let error = match failure {
            Failure::Status(status) => Error::of(&status, channel.server(), path),
            Failure::Timeout => self.timeout(channel.server(), path),
        };
        if error.is_of_the_member() {
            self.drop_link(channel).await;
        }
        error
    }

    fn timeout(&self, server: &Arc<str>, call: &'static str) -> Error {
        Error::Timeout {
            server: Arc::clone(server),
            call,
            limit: self.0.timeout,
        }
    }

    async fn drop_link(&self, channel: &Channel) {
        let mut state = self.0.state.lock().await;
        // Somebody else may have connected to another member already.
        let is_same = |current: &mut Channel| current.is_same(channel);
        if state.channel.take_if(is_same).is_some() {
            self.0.dialer.pass_over(channel.server());
        }
    }

    async fn forget_token(&self, tokens: u64) {
        let mut state = self.0.state.lock().await;
        if state.tokens == tokens {
            state.token = Token::Missing;
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.dialer).finish()
    }
}

impl Link {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    fn grpc(&self) -> Grpc<Channel> {
        let origin = self.channel.origin().clone();
        Grpc::with_origin(self.channel.clone(), origin).max_decoding_message_size(MAX_MESSAGE)
    }
}

/// A stream of watches that is open.
struct Watching {
    client: Client,
    link: Link,
}

impl Watching {
    async fn explain(&self, status: Status) -> Error {
        if wants_login(&status) {
            self.client.forget_token(self.link.tokens).await;
        }
        let failure = Failure::Status(status);
        self.client
            .explain(failure, &self.link.channel, WatchRequest::PATH)
            .await
    }
}

enum Failure {
    Status(Status),
    Timeout,
}

/// A member that is frozen is given up after 9 s. etcd hangs up on who pings more often than every 5 s
/// (`--grpc-keepalive-min-time`).
const KEEP_ALIVE: KeepAlive = KeepAlive {
    interval: Duration::from_secs(6),
    timeout: Duration::from_secs(3),
};
/// The largest answer that is taken; 10,000 endpoints of a kilobyte and a half.
const MAX_MESSAGE: usize = 16 << 20;
