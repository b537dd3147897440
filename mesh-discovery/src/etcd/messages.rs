//! The messages of etcd's API of which we use something, with the fields that we use.
//!
//! # Sources
//!
//! etcd 3.4, `etcdserver/etcdserverpb/rpc.proto` and `mvcc/mvccpb/kv.proto`: names and tags. Fields that are left out
//! here are not sent, and are skipped when they come.

use prost::Message;
use prost::Oneof;

/// A request with one answer, or a stream of them.
pub(super) trait Call: Message + 'static {
    type Answer: Message + Default + 'static;
    const PATH: &'static str;
}

#[derive(Clone, Copy, Eq, Message, PartialEq)]
pub(super) struct ResponseHeader {
    #[prost(int64, tag = "3")]
    pub(super) revision: i64,
}

#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(super) mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) value: Vec<u8>,
    #[prost(int64, tag = "6")]
    pub(super) lease: i64,
}

/// Keys from `key` up to, not including, `range_end`; only `key` where that is empty.
#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(super) limit: i64,
    #[prost(bool, tag = "8")]
    pub(super) keys_only: bool,
}

#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub(super) kvs: Vec<KeyValue>,
    /// Of all in the range, also those beyond the limit.
    #[prost(int64, tag = "4")]
    pub(super) count: i64,
}

impl Call for RangeRequest {
    type Answer = RangeResponse;
    const PATH: &'static str = "/etcdserverpb.KV/Range";
}

#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(super) lease: i64,
}

#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
}

/// If all of `compare` hold, what `success` says happens, else what `failure` says; at one revision.
#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(super) success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub(super) failure: Vec<RequestOp>,
}

#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct TxnResponse {
    #[prost(bool, tag = "2")]
    pub(super) succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub(super) responses: Vec<ResponseOp>,
}

impl Call for TxnRequest {
    type Answer = TxnResponse;
    const PATH: &'static str = "/etcdserverpb.KV/Txn";
}

#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct RequestOp {
    #[prost(oneof = "Op", tags = "1, 2, 3")]
    pub(super) op: Option<Op>,
}

#[derive(Clone, Eq, Oneof, PartialEq)]
pub(super) enum Op {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
}

#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct ResponseOp {
    #[prost(message, optional, tag = "1")]
    pub(super) range: Option<RangeResponse>,
}

/// Of the comparisons that etcd offers those for equality, whose number is 0.
#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct Compare {
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(oneof = "Target", tags = "6, 8")]
    is: Option<Target>,
}

/// What a key must have.
#[derive(Clone, Copy, Eq, Oneof, PartialEq)]
pub(super) enum Target {
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    #[prost(int64, tag = "8")]
    Lease(i64),
}

impl Compare {
    pub(super) fn new(key: &[u8], is: Target) -> Self {
        Self {
            target: match is {
                Target::ModRevision(_) => 2,
                Target::Lease(_) => 4,
            },
            key: key.to_vec(),
            is: Some(is),
        }
    }
}

#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct WatchRequest {
    #[prost(oneof = "WatchOp", tags = "1, 2, 3")]
    pub(super) op: Option<WatchOp>,
}

#[derive(Clone, Eq, Oneof, PartialEq)]
pub(super) enum WatchOp {
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    #[prost(message, tag = "2")]
    Cancel(WatchCancelRequest),
    #[prost(message, tag = "3")]
    Progress(WatchProgressRequest),
}

#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(super) start_revision: i64,
    #[prost(bool, tag = "4")]
    pub(super) progress_notify: bool,
    #[prost(int64, tag = "7")]
    pub(super) watch_id: i64,
    #[prost(bool, tag = "8")]
    pub(super) fragment: bool,
}

#[derive(Clone, Copy, Eq, Message, PartialEq)]
pub(super) struct WatchCancelRequest {
    #[prost(int64, tag = "1")]
    pub(super) watch_id: i64,
}

#[derive(Clone, Copy, Eq, Message, PartialEq)]
pub(super) struct WatchProgressRequest {}

#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct WatchResponse {
    #[prost(int64, tag = "2")]
    pub(super) watch_id: i64,
    #[prost(bool, tag = "3")]
    pub(super) created: bool,
    #[prost(bool, tag = "4")]
    pub(super) canceled: bool,
    #[prost(int64, tag = "5")]
    pub(super) compact_revision: i64,
    #[prost(string, tag = "6")]
    pub(super) cancel_reason: String,
    /// More of the same revision comes.
    #[prost(bool, tag = "7")]
    pub(super) fragment: bool,
    #[prost(message, repeated, tag = "11")]
    pub(super) events: Vec<Event>,
}

impl Call for WatchRequest {
    type Answer = WatchResponse;
    const PATH: &'static str = "/etcdserverpb.Watch/Watch";
}

#[derive(Clone, Eq, Message, PartialEq)]
pub(super) struct Event {
    /// 0 where a key was written, 1 where it was deleted.
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    /// What is there now; of a deletion the key and the revision.
    #[prost(message, optional, tag = "2")]
    pub(super) kv: Option<KeyValue>,
}

impl Event {
    pub(super) const PUT: i32 = 0;
    pub(super) const DELETE: i32 = 1;
}

#[derive(Clone, Copy, Eq, Message, PartialEq)]
pub(super) struct LeaseGrantRequest {
    /// In seconds.
    #[prost(int64, tag = "1")]
    pub(super) ttl: i64,
}

#[derive(Clone, Copy, Eq, Message, PartialEq)]
pub(super) struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    pub(super) id: i64,
}

impl Call for LeaseGrantRequest {
    type Answer = LeaseGrantResponse;
    const PATH: &'static str = "/etcdserverpb.Lease/LeaseGrant";
}

#[derive(Clone, Copy, Eq, Message, PartialEq)]
pub(super) struct LeaseKeepAliveRequest {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
}

#[derive(Clone, Copy, Eq, Message, PartialEq)]
pub(super) struct LeaseKeepAliveResponse {
    /// In seconds; 0 or less where there is no such lease.
    #[prost(int64, tag = "3")]
    pub(super) ttl: i64,
}

/// A stream in both directions, of which one question and one answer are used.
impl Call for LeaseKeepAliveRequest {
    type Answer = LeaseKeepAliveResponse;
    const PATH: &'static str = "/etcdserverpb.Lease/LeaseKeepAlive";
}

#[derive(Clone, Copy, Eq, Message, PartialEq)]
pub(super) struct LeaseRevokeRequest {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
}

#[derive(Clone, Copy, Eq, Message, PartialEq)]
pub(super) struct LeaseRevokeResponse {}

impl Call for LeaseRevokeRequest {
    type Answer = LeaseRevokeResponse;
    const PATH: &'static str = "/etcdserverpb.Lease/LeaseRevoke";
}

// Debug would show the password, so it is left to the caller.
#[derive(Clone, Eq, Message, PartialEq)]
#[prost(skip_debug)]
pub(super) struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) password: String,
}

#[derive(Clone, Eq, Message, PartialEq)]
#[prost(skip_debug)]
pub(super) struct AuthenticateResponse {
    #[prost(string, tag = "2")]
    pub(super) token: String,
}

impl Call for AuthenticateRequest {
    type Answer = AuthenticateResponse;
    const PATH: &'static str = "/etcdserverpb.Auth/Authenticate";
}

impl std::fmt::Debug for AuthenticateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthenticateRequest")
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AuthenticateResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthenticateResponse")
            .finish_non_exhaustive()
    }
}
