//! Copies, and faults that are made on purpose.

use std::sync::Arc;

use http::StatusCode;

use super::Fault as Wrong;
use super::matching::header_rules;
use super::subset;
use crate::config::AbortConfig;
use crate::config::FaultConfig;
use crate::config::MirrorConfig;
use crate::route::Abort;
use crate::route::Delay;
use crate::route::Fault;
use crate::route::FaultStatus;
use crate::route::Mirror;
use crate::route::RouteProblem;

pub(super) fn mirror(config: &MirrorConfig) -> Result<Mirror, Wrong> {
    Ok(Mirror {
        service: config.service.as_deref().map(Arc::from),
        subset: subset(config.subset.as_ref(), || ".mirror.subset".to_owned())?,
        percent: config.percent,
        max_concurrent: config.max_concurrent,
        timeout: config.timeout,
    })
}

pub(super) fn fault(config: &FaultConfig) -> Result<Fault, Wrong> {
    if config.delay.is_none() && config.abort.is_none() {
        return Err((".fault".to_owned(), RouteProblem::NoneOf("delay and abort")));
    }
    Ok(Fault {
        delay: config.delay.as_ref().map(|delay| Delay {
            time: delay.time,
            percent: delay.percent,
        }),
        abort: config.abort.as_ref().map(abort).transpose()?,
        headers: header_rules(&config.headers, ".fault.headers")?,
    })
}

fn abort(config: &AbortConfig) -> Result<Abort, Wrong> {
    let wrong = |key: &str, problem| Err((format!(".fault.abort{key}"), problem));
    let status = match (config.status, config.grpc_status) {
        (Some(status), None) => match StatusCode::from_u16(status) {
            Ok(status) if status.is_client_error() || status.is_server_error() => {
                FaultStatus::Http(status)
            }
            _ => return wrong(".status", RouteProblem::Status("400 to 599")),
        },
        (None, Some(status)) if (1..=LAST_GRPC_STATUS).contains(&status) => {
            FaultStatus::Grpc(status)
        }
        (None, Some(_)) => return wrong(".grpc_status", RouteProblem::Status("1 to 16")),
        _ => return wrong("", RouteProblem::OneOf("status", "grpc_status")),
    };
    Ok(Abort {
        status,
        percent: config.percent,
    })
}

/// UNAUTHENTICATED, the last of gRPC's `statuscodes.md`.
const LAST_GRPC_STATUS: u8 = 16;
