//! Where services are: one watch interface over any source of endpoints, and health checks on top of it.
//!
//! ```
//! use mesh_discovery::{Discover, ServiceName, StaticEntry, StaticSource};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let orders = ServiceName::parse("order-service")?;
//! let entry = StaticEntry::new(orders.clone(), "10.0.0.7".parse()?, 50051);
//! let source = StaticSource::new(vec![entry])?;
//!
//! let watch = source.watch(&orders);
//! let endpoints = watch.current();
//! assert_eq!(endpoints[0].to_string(), "10.0.0.7:50051");
//!
//! // An empty list never wipes out what is known: it turns stale and keeps serving.
//! source.replace(Vec::new())?;
//! assert!(watch.current().is_stale() && watch.current().len() == 1);
//! # Ok(())
//! # }
//! ```
//!
//! Registries give one answer after the other, and some of them are wrong: empty after a restart, partial, flapping, gone.
//! Between each registry and its watchers stands a [`Ledger`], so that none of this empties a list by accident: the last
//! good list stays, marked stale; what is withdrawn all at once is believed when checks or time confirm it; endpoints that
//! come and go are left out until they are calm. [`Discover::reports`] says what is not as a registry says, and why.
//!
//! Who takes most of a service away on purpose says so in another way too, for as long as active checks of an endpoint pass
//! it is not believed to be gone: stop the processes, so that the checks fail; or let them drain first (maintenance in
//! Consul, [`Condition::Draining`]), which is believed after [`Belief::grace`]; or take away half or less at a time, with the
//! grace between. Until then the list stays marked [`Staleness::Withdrawn`].
//!
//! # Which source to choose
//!
//! | you have | choose | a change is seen | who tells that an endpoint is gone |
//! |---|---|---|---|
//! | a handful of services that hardly ever move | [`StaticSource`] | when the program is told | who writes the configuration |
//! | a tool that writes files: a template, a config map | `file` | when the file is replaced | the tool |
//! | Consul | `consul` | at once: blocking queries | Consul's own checks, a registrar's time limit |
//! | etcd, and nothing else to run beside it | `etcd` | at once: a watch | the lease of the registrar |
//! | name servers, and nobody who would run a registry | `dns` | when the TTL of a record is over | who writes the zone; active checks are a must |
//! | a control plane for Envoy or gRPC | `xds` | at once: a stream | the control plane |
//! | a test | [`MemoryRegistry`] | at once | the test |
//!
//! Two sources are better than one: [`Combined`] takes the first that is fresh, and fails over to the next and back, or
//! merges them. The feature `cache` keeps the last good lists on disk, for a start while the registry is away. Each source
//! has an example in `examples/` that runs against a server on this machine.
//!
//! # What this crate does not do
//!
//! - It says where a service may be, never who answers there: the caller must check the identity that the
//!   peer proves. [`Endpoint::spiffe_id`] and [`Endpoint::public_key_fingerprint`] carry what to expect.
//! - It picks no endpoint; load balancing and ejection of failing endpoints belong to the caller.
//! - It resolves no host names of endpoints; with the feature `dns` it asks DNS for services. Whoever resolves names must
//!   pass each address through [`AddressRules`], or at least through [`check_address`].
//! - It spawns no task and opens no connection: [`HealthDriver::run`] runs where the caller awaits it, with
//!   the caller's connect function.
//!
//! # Modules
//!
//! The public types are all at the crate root.
//!
//! | module | what it holds |
//! |---|---|
//! | `name` | [`ServiceName`] |
//! | `host` | [`Host`]: a checked host name or address |
//! | `address` | [`check_address`]: address ranges that no endpoint may have; [`AddressRules`]: those that no name may lead to |
//! | `admission` | [`Admission`]: what the caller lets a registry say |
//! | `endpoint` | [`Endpoint`] and the immutable list of them, [`Endpoints`] |
//! | [`metadata`] | the keys that mean something in what registries let people write down; a module of its own |
//! | `watch` | [`Discover`], [`Watch`], [`Publisher`] |
//! | `ledger` | [`Ledger`], [`Belief`]: what is believed of a registry, and when |
//! | `registry` | [`Registry`], [`Wants`], [`Reporter`], [`Driver`]: what every source is made of; write your own with it |
//! | `report` | [`SourceReport`]: why the endpoints are these |
//! | `evidence` | [`Evidence`]: what is known of an endpoint from elsewhere |
//! | `register` | [`Register`], [`keep_registered`]: telling a registry where one is |
//! | `combined` | [`Combined`]: several sources as one |
//! | `recall` | [`Recall`]: what outlives the process |
//! | `cache` | with the feature of that name, in a module of its own: the last good lists on disk |
//! | `memory` | [`MemoryRegistry`]: a registry in memory for users' own tests |
//! | `fixed` | [`StaticSource`]: endpoints from configuration |
//! | `health` | [`Check`], [`CheckTable`], [`HealthDriver`]: active checks; [`Vitals`]: what they and traffic know; with `probe` and `probe-grpc` probes over TCP, HTTP and gRPC |
//! | `consul` | with the feature of that name, in a module of its own: services in Consul, registering there, its keys |
//! | `etcd` | with the feature of that name, in a module of its own: a source that watches etcd, and a registrar with a lease |
//! | `tls` | with the feature of that name: `TlsConfig`, which all registries that are reached by TLS take |
//! | `dns` | with the feature of that name, in a module of its own: a source that asks name servers |
//! | `xds` | with the feature of that name, in a module of its own: a source that follows a control plane for Envoy or gRPC |
//! | `file` | with the feature of that name, in a module of its own: a source that reads a file whenever it changes |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `cache` | the module `cache`: a file of the last good lists |
//! | `consul` | the module `consul`: a source, a registrar and a client of Consul's HTTP API, over HTTP or HTTPS |
//! | `etcd` | the module `etcd`: a client of our own for etcd's gRPC API |
//! | `probe` | `connect`, which checks addresses, and `HttpProbe` |
//! | `probe-grpc` | `GrpcProbe`: gRPC's health protocol, version 1, over a stream of the caller's |
//! | `dns` | the module `dns`: services in SRV, A and AAAA records |
//! | `xds` | the module `xds`: clusters and assignments over the aggregated discovery service |
//! | `file` | the module `file`: services in a YAML or JSON file that is watched |
//! | `serde` | `Deserialize` and `Serialize` for [`ServiceName`], [`Host`] and [`StaticEntry`] |
//! | `tls` | `TlsConfig`, `TlsIdentity` and `TlsError`; the registries that need it turn it on |
//!
//! # Errors and cancel safety
//!
//! [`NameError`] and [`HostError`] come from parsing, [`Error`] from lists and configuration that are refused
//! as a whole, [`Closed`] from a watch whose source is gone; Consul's client has an error of its own.
//! [`Watch::changed`], [`Wants::next`] and [`HealthDriver::run`] are cancel safe. Dropping a [`Driver`] ends its source, and
//! dropping [`keep_registered`] leaves the registration to the registry's time limit.

mod address;
mod admission;
#[cfg(feature = "cache")]
pub mod cache;
mod combined;
#[cfg(feature = "consul")]
pub mod consul;
#[cfg(feature = "dns")]
pub mod dns;
mod endpoint;
mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
mod evidence;
#[cfg(feature = "file")]
pub mod file;
mod fixed;
#[cfg(any(feature = "etcd", feature = "xds"))]
mod grpc;
mod health;
mod host;
mod ledger;
mod memory;
pub mod metadata;
mod name;
#[cfg(any(feature = "consul", feature = "etcd", feature = "xds"))]
mod origin;
mod recall;
mod register;
mod registry;
mod report;
mod subscription;
#[cfg(feature = "tls")]
mod tls;
mod watch;
#[cfg(feature = "xds")]
pub mod xds;

pub use address::AddressRange;
pub use address::AddressRangeError;
pub use address::AddressRules;
pub use address::RefusedAddress;
pub use address::SpecialAddress;
pub use address::check_address;
pub use admission::Admission;
pub use admission::AdmitAll;
pub use combined::Combination;
pub use combined::Combined;
pub use combined::CombinedConfig;
pub use endpoint::Condition;
pub use endpoint::Endpoint;
pub use endpoint::Endpoints;
pub use endpoint::MAX_ENDPOINTS_PER_SERVICE;
pub use endpoint::Refused;
pub use endpoint::Staleness;
pub use endpoint::Standing;
pub use error::Error;
pub use evidence::Evidence;
pub use evidence::NoEvidence;
pub use fixed::Replaced;
pub use fixed::StaticEntry;
pub use fixed::StaticSource;
pub use health::Check;
pub use health::CheckTable;
pub use health::EndpointHealth;
#[cfg(feature = "probe-grpc")]
pub use health::GrpcProbe;
pub use health::Health;
pub use health::HealthConfig;
pub use health::HealthDriver;
#[cfg(feature = "probe")]
pub use health::HttpProbe;
pub use health::ProbeLimit;
pub use health::Status;
pub use health::Vitals;
#[cfg(feature = "probe")]
pub use health::connect;
pub use host::Host;
pub use host::HostError;
pub use ledger::Belief;
pub use ledger::Damping;
pub use ledger::Ledger;
pub use memory::MemoryFault;
pub use memory::MemoryRegistry;
pub use memory::ToldToFail;
pub use name::NameError;
pub use name::ServiceName;
pub use recall::Recall;
pub use register::BoxFuture;
pub use register::Register;
pub use register::RegisterError;
pub use register::Registration;
pub use register::RegistrationState;
pub use register::Renewed;
pub use register::keep_registered;
pub use registry::Driver;
pub use registry::Registry;
pub use registry::RegistryConfig;
pub use registry::Reporter;
pub use registry::Want;
pub use registry::Wants;
pub use report::Exception;
pub use report::ExceptionReason;
pub use report::SourceReport;
#[cfg(feature = "tls")]
pub use tls::TlsConfig;
#[cfg(feature = "tls")]
pub use tls::TlsError;
#[cfg(feature = "tls")]
pub use tls::TlsIdentity;
pub use watch::Closed;
pub use watch::Discover;
pub use watch::Publisher;
pub use watch::Watch;

const fn assert_send_sync<T: Send + Sync>() {}

const _: () = assert_send_sync::<StaticSource>();
const _: () = assert_send_sync::<Watch>();
const _: () = assert_send_sync::<Publisher>();
const _: () = assert_send_sync::<Health>();
