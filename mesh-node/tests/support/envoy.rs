//! Envoy, as a proxy of its own beside a node.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use serde_json::json;

use super::client::curl;
use super::process::Process;
use super::process::free_port;
use super::process::wait_until;
use super::tools::tool;

/// A running Envoy with one listener and one cluster.
#[derive(Debug)]
pub(crate) struct Envoy {
    pub(crate) port: u16,
    admin: u16,
    process: Process,
}

/// What Envoy shows of itself, and whom it trusts.
#[derive(Debug)]
pub(crate) struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    trust_domain: String,
    roots: PathBuf,
}

impl Identity {
    /// The certificate of `service` in `certs`, as `mesh-node ca issue` leaves it, and the roots beside it.
    pub(crate) fn new(certs: &Path, service: &str, trust_domain: &str) -> Self {
        Self {
            certificate: certs.join(format!("{service}.crt")),
            key: certs.join(format!("{service}.key")),
            trust_domain: trust_domain.to_owned(),
            roots: certs.join("ca.crt"),
        }
    }

    /// The same certificate, but other roots.
    pub(crate) fn trusting(mut self, roots: &Path) -> Self {
        roots.clone_into(&mut self.roots);
        self
    }

    /// Envoy's common TLS context: TLS 1.3, SPIFFE's own verification against the roots of the trust domain, and the peer's
    /// name exactly.
    fn context(&self, peer: &str, alpn: &[&str]) -> Value {
        json!({
            "alpn_protocols": alpn,
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
                "ecdh_curves": ["X25519MLKEM768", "X25519", "P-256"],
            },
            "tls_certificates": [ {
                "certificate_chain": { "filename": self.certificate },
                "private_key": { "filename": self.key },
            } ],
            "validation_context": {
                "match_typed_subject_alt_names": [ { "san_type": "URI", "matcher": { "exact": peer } } ],
                "custom_validator_config": {
                    "name": "envoy.tls.cert_validator.spiffe",
                    "typed_config": {
                        "@type": format!("{TLS}.SPIFFECertValidatorConfig"),
                        "trust_domains": [
                            { "name": self.trust_domain, "trust_bundle": { "filename": self.roots } },
                        ],
                    },
                },
            },
        })
    }
}

impl Envoy {
    /// Takes plain HTTP and sends it to `node` over mutual TLS as `protocol` (`h2` or `http/1.1`), which must prove to be `peer`.
    pub(crate) fn before(
        node: u16,
        peer: &str,
        protocol: &str,
        identity: &Identity,
        dir: &Path,
    ) -> Option<Self> {
        let options = match protocol {
            "h2" => json!({ "http2_protocol_options": {} }),
            _ => json!({ "http_protocol_options": {} }),
        };
        let cluster = json!({
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": options,
                },
            },
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": format!("{TLS}.UpstreamTlsContext"),
                    "common_tls_context": identity.context(peer, &[protocol]),
                },
            },
        });
        Self::start(json!({}), cluster, node, dir)
    }

    /// Takes mutual TLS from `peer` and sends what comes to the application at `app`.
    pub(crate) fn behind(app: u16, peer: &str, identity: &Identity, dir: &Path) -> Option<Self> {
        let chain = json!({
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": format!("{TLS}.DownstreamTlsContext"),
                    "require_client_certificate": true,
                    "common_tls_context": identity.context(peer, &["h2", "http/1.1"]),
                },
            },
        });
        Self::start(chain, json!({}), app, dir)
    }

    /// Takes plain HTTP in any version and sends it to the application at `app` as HTTP/1.1.
    pub(crate) fn plain(app: u16, dir: &Path) -> Option<Self> {
        Self::start(json!({}), json!({}), app, dir)
    }

    /// Takes plain HTTP and sends it to the application at `app`, as long as the rate limit service at `limits` allows it in
    /// the domain `edge`, for the header `x-tenant`; by mutual TLS with an identity and the service's id.
    pub(crate) fn limited(
        app: u16,
        limits: u16,
        identity: Option<(&Identity, &str)>,
        dir: &Path,
    ) -> Option<Self> {
        let ports @ (_, admin) = (free_port(), free_port());
        let mut bootstrap = bootstrap((ports.0, admin, app), json!({}), json!({}));
        let resources = &mut bootstrap["static_resources"];
        let manager =
            &mut resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
        manager["route_config"]["virtual_hosts"][0]["rate_limits"] = json!([ { "actions": [
            { "request_headers": { "header_name": "x-tenant", "descriptor_key": "tenant" } },
        ] } ]);
        let filter = json!({
            "name": "envoy.filters.http.ratelimit",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
                "domain": "edge",
                "timeout": "5s",
                "failure_mode_deny": true,
                "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
                "rate_limit_service": {
                    "transport_api_version": "V3",
                    "grpc_service": { "envoy_grpc": { "cluster_name": "limits" } },
                },
            },
        });
        let filters = manager["http_filters"].as_array_mut().unwrap();
        filters.insert(0, filter);
        let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": limits } });
        let mut cluster = json!({
            "name": "limits",
            "type": "STATIC",
            "health_checks": [ {
                "timeout": "5s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1,
                "grpc_health_check": {},
            } ],
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": { "http2_protocol_options": {} },
                },
            },
            "load_assignment": { "cluster_name": "limits", "endpoints": [
                { "lb_endpoints": [ { "endpoint": { "address": address } } ] },
            ] },
        });
        if let Some((identity, peer)) = identity {
            cluster["transport_socket"] = json!({
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": format!("{TLS}.UpstreamTlsContext"),
                    "common_tls_context": identity.context(peer, &["h2"]),
                },
            });
        }
        resources["clusters"].as_array_mut().unwrap().push(cluster);
        Self::launch(ports, &bootstrap, dir)
    }

    fn start(chain: Value, cluster: Value, to: u16, dir: &Path) -> Option<Self> {
        let ports @ (port, admin) = (free_port(), free_port());
        Self::launch(ports, &bootstrap((port, admin, to), chain, cluster), dir)
    }

    fn launch((port, admin): (u16, u16), bootstrap: &Value, dir: &Path) -> Option<Self> {
        let program = tool("envoy")?;
        let config = dir.join(format!("envoy-{port}.json"));
        fs::write(&config, bootstrap.to_string()).unwrap();
        let mut command = Command::new(program);
        command
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "-l",
                "info",
                "-c",
            ])
            .arg(&config)
            .env_clear();
        let process = Process::start(&mut command, dir, &format!("envoy-{port}"));
        let mut envoy = Self {
            port,
            admin,
            process,
        };
        wait_until("Envoy is ready", || {
            assert!(envoy.process.is_running(), "{}", envoy.process.err());
            curl(&[&envoy.admin_url("/ready")]).status == 200
        });
        Some(envoy)
    }

    fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin)
    }

    /// The sum of its counters whose names end like this.
    #[track_caller]
    pub(crate) fn stat(&self, suffix: &str) -> u64 {
        let page = curl(&[&self.admin_url("/stats")]).expect(200).text();
        let values = page.lines().filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.ends_with(suffix).then(|| value.parse::<u64>().ok())?
        });
        values.sum()
    }

    /// A call through it to the order service.
    #[track_caller]
    pub(crate) fn call(&self, target: &str, args: &[&str]) -> super::client::Answer {
        let url = format!("http://127.0.0.1:{}{target}", self.port);
        let mut all = vec!["-H", "Host: order-service", &url];
        all.extend(args);
        curl(&all)
    }
}

fn bootstrap((port, admin, to): (u16, u16, u16), mut chain: Value, mut cluster: Value) -> Value {
    let at =
        |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    chain["filters"] = json!([ {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "route_config": { "virtual_hosts": [
                { "name": "all", "domains": ["*"], "routes": [
                    { "match": { "prefix": "/" }, "route": { "cluster": "to" } },
                ] },
            ] },
            "http_filters": [ {
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
            } ],
        },
    } ]);
    cluster["name"] = json!("to");
    cluster["type"] = json!("STATIC");
    cluster["load_assignment"] = json!({ "cluster_name": "to", "endpoints": [
        { "lb_endpoints": [ { "endpoint": { "address": at(to) } } ] },
    ] });
    json!({
        "admin": { "address": at(admin) },
        "static_resources": {
            "listeners": [ { "name": "in", "address": at(port), "filter_chains": [chain] } ],
            "clusters": [cluster],
        },
    })
}

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
