//! One endpoint of an assignment.

use std::fmt;
use std::net::IpAddr;

use super::metadata;
use super::wrapped;
use crate::address::check_address;
use crate::endpoint::Condition;
use crate::endpoint::Endpoint;
use crate::host::Host;
use crate::xds::fields::ADDRESS;
use crate::xds::fields::ENDPOINT;
use crate::xds::fields::LB_ENDPOINT;
use crate::xds::fields::SOCKET_ADDRESS;
use crate::xds::ignored::Ignored;
use crate::xds::wire::Field;
use crate::xds::wire::Wrong;
use crate::xds::wire::fields;

/// An endpoint as the server says it.
#[derive(Debug)]
pub(super) struct LbEndpoint<'a> {
    /// Its own weight, which counts for more than one in its metadata.
    weight: Option<u32>,
    condition: Condition,
    host: Option<Host>,
    port: Option<u16>,
    metadata: metadata::Found<'a>,
}

impl<'a> LbEndpoint<'a> {
    pub(super) fn read(bytes: &'a [u8], ignored: &mut Ignored) -> Result<Self, Wrong> {
        let mut read = Self {
            weight: None,
            condition: Condition::Passing,
            host: None,
            port: None,
            metadata: metadata::Found::default(),
        };
        for field in fields(&LB_ENDPOINT, bytes) {
            let field = field?;
            match field.tag {
                1 => read.merge_endpoint(field.bytes()?, ignored)?,
                2 => read.condition = condition(&field)?,
                3 => read.metadata.merge(field.bytes()?, ignored)?,
                4 => {
                    let weight = wrapped(&field)?;
                    if weight == 0 {
                        return Err(field.wrong("is 0; leave an endpoint out that gets no traffic"));
                    }
                    read.weight = Some(weight);
                }
                5 => return Err(field.wrong("is not followed; give the endpoint itself")),
                _ => ignored.note(&field),
            }
        }
        Ok(read)
    }

    /// The endpoint, and its weight among those of its locality.
    pub(super) fn into_endpoint(self) -> Result<(Endpoint, u32), Wrong> {
        let host = self
            .host
            .ok_or_else(|| Wrong::new(&SOCKET_ADDRESS, 2, "is missing"))?;
        let port = self
            .port
            .ok_or_else(|| Wrong::new(&SOCKET_ADDRESS, 3, "is missing"))?;
        let mut endpoint = Endpoint::new(host, port);
        endpoint.condition = self.condition;
        self.metadata.apply(&mut endpoint)?;
        let weight = self.weight.unwrap_or(endpoint.weight.get().into());
        Ok((endpoint, weight))
    }

    fn merge_endpoint(&mut self, bytes: &[u8], ignored: &mut Ignored) -> Result<(), Wrong> {
        for field in fields(&ENDPOINT, bytes) {
            let field = field?;
            match field.tag {
                1 => self.merge_address(field.bytes()?, ignored)?,
                _ => ignored.note(&field),
            }
        }
        Ok(())
    }

    fn merge_address(&mut self, bytes: &[u8], ignored: &mut Ignored) -> Result<(), Wrong> {
        for field in fields(&ADDRESS, bytes) {
            let field = field?;
            match field.tag {
                1 => self.merge_socket_address(field.bytes()?, ignored)?,
                2 | 3 => return Err(field.wrong("can't be reached; use socket_address")),
                _ => ignored.note(&field),
            }
        }
        Ok(())
    }

    fn merge_socket_address(&mut self, bytes: &[u8], ignored: &mut Ignored) -> Result<(), Wrong> {
        for field in fields(&SOCKET_ADDRESS, bytes) {
            let field = field?;
            match field.tag {
                1 => {
                    if field.uint32()? != 0 {
                        return Err(field.wrong("is not TCP"));
                    }
                }
                2 => self.host = Some(host(&field)?),
                3 => {
                    let port = u16::try_from(field.uint64()?).ok();
                    let port = port.filter(|port| *port != 0);
                    self.port = Some(port.ok_or_else(|| field.wrong("is not 1 to 65535"))?);
                }
                4 => return Err(field.wrong("is not resolved; use port_value")),
                _ => ignored.note(&field),
            }
        }
        Ok(())
    }
}

/// An address, never a name: who resolves it would decide where the traffic goes.
fn host(field: &Field<'_>) -> Result<Host, Wrong> {
    let address: IpAddr = field
        .text()?
        .parse()
        .ok()
        .ok_or_else(|| field.wrong("is no IP address"))?;
    let refused = |error: &dyn fmt::Display| field.wrong(format!("is refused: {error}"));
    let address = check_address(address).map_err(|special| refused(&special))?;
    Host::from_ip(address).map_err(|error| refused(&error))
}

fn condition(field: &Field<'_>) -> Result<Condition, Wrong> {
    Ok(match field.uint32()? {
        // UNKNOWN counts as healthy, and so does HEALTHY.
        0 | 1 => Condition::Passing,
        // UNHEALTHY and TIMEOUT.
        2 | 4 => Condition::Critical,
        3 => Condition::Draining,
        // DEGRADED.
        5 => Condition::Warning,
        _ => return Err(field.wrong("is no health status")),
    })
}
