//! The bytes of a connection, so that messages come through fe2o3-amqp as they are: a payload that it can't decode is reported as a
//! lost link there, and one that is nested deeply ends the process.
//!
//! Each piece of a message that comes in is wrapped as a data section. So every message that fe2o3-amqp sees is made of data, and
//! these bytes together are the message.

use std::io;

use fe2o3_amqp::types::{messaging::Body, primitives::Value};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, copy, duplex, split};

/// The largest frame that the service may send: what Microsoft's clients ask for.
pub(crate) const MAX_FRAME: u32 = 65_536;

/// What goes in front of a piece: descriptor, constructor and length of a data section.
const WRAPPER: [u8; 4] = [0, 0x53, 0x75, 0xB0];

/// The largest frame with its wrapper.
pub(crate) const MAX_WRAPPED: u32 = MAX_FRAME + 8;

/// Two protocol headers and the frames between them are as they are; the first frame of the second protocol is `open`.
const OPEN: u64 = 0x10;
const TRANSFER: u64 = 0x14;

/// What fe2o3-amqp is to talk to in place of `stream`. Both end together.
pub(crate) fn wrapping(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> DuplexStream {
    let (ours, theirs) = duplex(2 * MAX_WRAPPED as usize);
    tokio::spawn(async move {
        let (from_service, to_service) = split(stream);
        let (from_client, to_client) = split(theirs);
        // An end or a failure of one direction drops both; fe2o3-amqp sees that its stream has ended.
        let ended = tokio::select! {
            ended = bring_in(from_service, to_client) => ended,
            ended = bring_out(from_client, to_service) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to Event Hubs has ended");
        }
    });
    ours
}

async fn bring_in(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut frame = Vec::new();
    loop {
        read_frame(&mut from, &mut frame, MAX_FRAME).await?;
        if let Some(payload) = payload_of(&frame, TRANSFER) {
            let length = (frame.len() - payload) as u32;
            let wrapper = [WRAPPER, length.to_be_bytes()].concat();
            let size = (frame.len() + wrapper.len()) as u32;
            to.write_all(&size.to_be_bytes()).await?;
            to.write_all(&frame[4..payload]).await?;
            to.write_all(&wrapper).await?;
            to.write_all(&frame[payload..]).await?;
        } else {
            to.write_all(&frame).await?;
        }
    }
}

async fn bring_out(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut frame = Vec::new();
    loop {
        read_frame(&mut from, &mut frame, MAX_WRAPPED).await?;
        let is_open = payload_of(&frame, OPEN).is_some();
        if is_open {
            allow_no_more(&mut frame)?;
        }
        to.write_all(&frame).await?;
        to.flush().await?;
        if is_open {
            return copy(&mut from, &mut to).await.map(drop);
        }
    }
}

/// The service must leave room for the wrapper.
fn allow_no_more(open: &mut [u8]) -> io::Result<()> {
    let uint = |number: u32| [&[0x70][..], &number.to_be_bytes()].concat();
    let (wrapped, told) = (uint(MAX_WRAPPED), uint(MAX_FRAME));
    let at = open.windows(wrapped.len()).position(|bytes| bytes == wrapped);
    let at = at.ok_or_else(|| io::Error::other("internal: a connection is opened without the size of its frames"))?;
    open[at..at + told.len()].copy_from_slice(&told);
    Ok(())
}

/// Reads a frame with its size, or the eight bytes of a protocol header.
async fn read_frame(from: &mut (impl AsyncRead + Unpin), frame: &mut Vec<u8>, max: u32) -> io::Result<()> {
    let mut head = [0; 4];
    from.read_exact(&mut head).await?;
    let size = if head == *b"AMQP" { 8 } else { u32::from_be_bytes(head) };
    if !(8..=max).contains(&size) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {size} bytes")));
    }
    frame.clear();
    frame.extend(head);
    frame.resize(size as usize, 0);
    from.read_exact(&mut frame[4..]).await.map(drop)
}

/// Where the payload of a frame begins, if it is one of AMQP with this performative.
fn payload_of(frame: &[u8], performative: u64) -> Option<usize> {
    let (is_amqp, body) = (frame[5] == 0 && &frame[..4] != b"AMQP", frame.get(usize::from(frame[4]) * 4..)?);
    let (described, payload) = crate::encoding::split(body).filter(|_| is_amqp)?;
    let (descriptor, _) = crate::encoding::described(described)?;
    let code = u64::try_from(crate::encoding::integer(descriptor)?).ok()?;
    (code == performative).then(|| frame.len() - payload.len())
}

/// The message that fe2o3-amqp has taken for the body of one.
pub(crate) fn unwrapped(body: Body<Value>) -> Vec<u8> {
    let Body::Data(pieces) = body else { return Vec::new() };
    let mut pieces = pieces.into_iter().map(|piece| piece.0.into_vec());
    let mut message = pieces.next().unwrap_or_default();
    pieces.for_each(|piece| message.extend(piece));
    message
}
