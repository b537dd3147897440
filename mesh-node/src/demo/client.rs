//! Plain HTTP, as an application or a person at a terminal would send it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::Response;
use http::Uri;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Limited;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::app::AppClient;
use mesh_transport::app::AppConfig;
use mesh_transport::tasks::Tasks;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::respond::X_REQUEST_ID;

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    uri: String,
    id: Option<String>,
    body: String,
}

/// One answer, read to its end.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn new(method: Method, uri: impl Into<String>) -> Self {
        Self {
            method,
            uri: uri.into(),
            id: None,
            body: String::new(),
        }
    }

    pub(super) fn get(uri: impl Into<String>) -> Self {
        Self::new(Method::GET, uri)
    }

    /// Names the request, so that it can be found in the logs.
    pub(super) fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    pub(super) fn with_body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    /// The request as hyper takes it.
    pub(super) fn into_request(self) -> Result<Request<Body>, BoxError> {
        let uri: Uri = self.uri.parse()?;
        let mut request = Request::builder().method(self.method);
        if let Some(authority) = uri.authority() {
            request = request.header(header::HOST, authority.as_str());
        }
        if let Some(id) = &self.id {
            request = request.header(X_REQUEST_ID, id);
        }
        Ok(request.uri(uri).body(Body::from(self.body))?)
    }

    /// Sends the request to whoever listens on `address`; with a whole URL of another host that is a proxy.
    pub(super) async fn send(self, address: SocketAddr) -> Result<Answer, BoxError> {
        let client = AppClient::new(
            AppConfig::new(address.to_string()),
            Tasks::new(Handle::current()),
        );
        let request = self.into_request()?;
        let exchange = async { Answer::read(client.send(request).await?).await };
        tokio::time::timeout(PATIENCE, exchange).await?
    }
}

impl Answer {
    /// Reads `response` to its end.
    pub(super) async fn read(response: Response<Body>) -> Result<Self, BoxError> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
        Ok(Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }

    /// A header's value, empty where there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as JSON; null where it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }

    /// Status and the named headers that are there, such as `403 · x-mesh-error: denied`.
    pub(super) fn summary(&self, names: &[&str]) -> String {
        let mut text = self.status.to_string();
        for name in names {
            let value = self.header(name);
            if !value.is_empty() {
                text = format!("{text} · {name}: {value}");
            }
        }
        text
    }

    /// The sentence of an answer that the mesh made, else the body.
    pub(super) fn sentence(&self) -> String {
        let json = self.json();
        json.pointer("/error/message")
            .and_then(Value::as_str)
            .map_or_else(|| self.text(), str::to_owned)
    }
}

/// No answer of the demonstration takes a tenth of this.
const PATIENCE: Duration = Duration::from_secs(15);
const MAX_ANSWER_BYTES: usize = 1 << 20;
