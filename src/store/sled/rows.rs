//! How rows stand in sled's one tree.
//!
//! | key | value |
//! |---|---|
//! | `00` | the name of this format |
//! | family, key | `00`, value |
//! | family, key | `01`, length (u32), id (u64): the value is in chunks |
//! | `ff`, family, id (u64), index (u32) | a chunk: 4096 bytes, the last one 1 to 4096 |
//!
//! Numbers are big-endian. An id is used for one value only, so a reader that has read a head finds its chunks or, after
//! the value was replaced, finds them missing; it never finds those of another value.

use cutover_formats::Family;
use sled::{IVec, Tree};

use super::shielded;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Batch, Change};

/// Longest value that stands in one row, and the size of a chunk.
pub(super) const CHUNK: usize = 4096;

const FORMAT_KEY: &[u8] = &[0];
const FORMAT: &[u8] = b"cutover sled 1";
const INLINE: u8 = 0;
const CHUNKED: u8 = 1;
const CHUNKS: u8 = 0xFF;

/// Writes the name of the format into a new database and finds it in an old one.
pub(super) fn check_format(tree: &Tree) -> Result<()> {
    match shielded("read the format", || tree.get(FORMAT_KEY))? {
        Some(format) if format == FORMAT => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::Foreign, "it has another format than this version reads")),
        None if shielded("look for rows", || tree.first())?.is_none() => {
            shielded("write the format", || {
                tree.insert(FORMAT_KEY, FORMAT)?;
                tree.flush()
            })?;
            Ok(())
        }
        None => Err(Error::new(ErrorKind::Foreign, "it is not ours: it holds rows but no name of a format")),
    }
}

/// A batch that writes and changes nothing: the name of the format, as it is.
pub(super) fn unchanged() -> sled::Batch {
    let mut batch = sled::Batch::default();
    batch.insert(FORMAT_KEY, FORMAT);
    batch
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored<'v> {
    /// Here.
    Inline(&'v [u8]),
    /// In chunks.
    Chunked(Chunks),
}

impl<'v> Stored<'v> {
    pub(super) fn decode(family: Family, bytes: &'v [u8]) -> Result<Self> {
        match bytes.split_first() {
            Some((&INLINE, value)) => Ok(Self::Inline(value)),
            Some((&CHUNKED, head)) => match Chunks::decode(family, head) {
                Some(chunks) => Ok(Self::Chunked(chunks)),
                None => Err(corrupt(family)),
            },
            _ => Err(corrupt(family)),
        }
    }
}

pub(super) fn corrupt(family: Family) -> Error {
    Error::new(ErrorKind::Corrupt, format!("sled: a row of {} is not one that was written", family.name()))
}

/// The chunks of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunks {
    family: Family,
    pub(super) id: u64,
    len: u32,
}

impl Chunks {
    fn decode(family: Family, head: &[u8]) -> Option<Self> {
        let (len, id) = head.split_first_chunk::<4>()?;
        let id = id.try_into().ok()?;
        Some(Self { family, len: u32::from_be_bytes(*len), id: u64::from_be_bytes(id) })
    }

    /// Chunks of a value larger than [`CHUNK`].
    pub(super) fn new(family: Family, id: u64, value: &[u8]) -> Result<Self> {
        let len = u32::try_from(value.len())
            .map_err(|_| Error::new(ErrorKind::InvalidInput, "the value is larger than 4 GiB"))?;
        Ok(Self { family, id, len })
    }

    fn head(&self) -> Vec<u8> {
        let mut head = vec![CHUNKED];
        head.extend_from_slice(&self.len.to_be_bytes());
        head.extend_from_slice(&self.id.to_be_bytes());
        head
    }

    fn key(&self, index: u32) -> [u8; 14] {
        let mut key = [CHUNKS; 14];
        let (head, rest) = key.split_at_mut(2);
        head.copy_from_slice(&[CHUNKS, self.family as u8]);
        let (id, at) = rest.split_at_mut(8);
        id.copy_from_slice(&self.id.to_be_bytes());
        at.copy_from_slice(&index.to_be_bytes());
        key
    }

    pub(super) fn count(&self) -> u32 {
        self.len.div_ceil(CHUNK as u32)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = [u8; 14]> + '_ {
        (0..self.count()).map(|index| self.key(index))
    }

    /// The value, or `None` if not all of it is there.
    pub(super) fn read(&self, tree: &Tree) -> Result<Option<Vec<u8>>> {
        // Not more than is there: the length may be damaged.
        let mut value = Vec::new();
        let mut rows = tree.range(self.key(0)..self.key(self.count()));
        for expected in self.keys() {
            match shielded("read a chunk", || rows.next().transpose())? {
                Some((key, chunk)) if *key == expected => value.extend_from_slice(&chunk),
                _ => return Ok(None),
            }
        }
        Ok((value.len() == self.len as usize).then_some(value))
    }

    /// The largest id in use in a family.
    pub(super) fn last(tree: &Tree, family: Family) -> Result<Option<u64>> {
        let (from, to) = ([CHUNKS, family as u8], [CHUNKS, family as u8 + 1]);
        let last = shielded("look for chunks", || tree.range(from..to).next_back().transpose())?;
        let Some((key, _)) = last else { return Ok(None) };
        let id = key.get(2..).and_then(<[u8]>::first_chunk::<8>).ok_or_else(|| corrupt(family))?;
        Ok(Some(u64::from_be_bytes(*id)))
    }
}

/// The key of a row in the tree.
pub(super) fn key(family: Family, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(family as u8);
    bytes.extend_from_slice(key);
    bytes
}

/// The bounds of a range of rows, or `None` if it is empty.
pub(super) fn range(family: Family, from: &[u8], to: &[u8]) -> Option<std::ops::Range<Vec<u8>>> {
    if to.is_empty() {
        Some(key(family, from)..vec![family as u8 + 1])
    } else {
        (from < to).then(|| key(family, from)..key(family, to))
    }
}

/// A batch in the form that sled applies, still without the removal of the chunks that it replaces.
pub(super) struct Encoded {
    pub(super) batch: sled::Batch,
    /// What has changed: families and keys in the tree.
    pub(super) keys: Vec<(Family, IVec)>,
    /// Families in which there are chunks now.
    pub(super) chunked: Vec<Family>,
}

/// Cuts and encodes a batch, with ids from `next_id`.
pub(super) fn encode(batch: &Batch, mut next_id: impl FnMut() -> u64) -> Result<Encoded> {
    let mut out =
        Encoded { batch: sled::Batch::default(), keys: Vec::with_capacity(batch.len()), chunked: Vec::new() };
    // Chunked values of this batch, which a later change of the same key makes superfluous.
    let mut fresh: Vec<(IVec, Chunks)> = Vec::new();
    let mut bytes = Vec::new();
    for change in batch.changes() {
        let (Change::Put(family, row, _) | Change::Delete(family, row)) = change;
        let at = IVec::from(key(family, row));
        if let Some(place) = fresh.iter().position(|(key, _)| *key == at) {
            let (_, chunks) = fresh.swap_remove(place);
            chunks.keys().for_each(|key| out.batch.remove(&key));
        }
        match change {
            Change::Delete(..) => out.batch.remove(at.clone()),
            Change::Put(_, _, value) if value.len() <= CHUNK => {
                bytes.clear();
                bytes.push(INLINE);
                bytes.extend_from_slice(value);
                out.batch.insert(at.clone(), bytes.as_slice());
            }
            Change::Put(_, _, value) => {
                let chunks = Chunks::new(family, next_id(), value)?;
                for (key, chunk) in chunks.keys().zip(value.chunks(CHUNK)) {
                    out.batch.insert(&key, chunk);
                }
                out.batch.insert(at.clone(), chunks.head());
                out.chunked.push(family);
                fresh.push((at.clone(), chunks));
            }
        }
        out.keys.push((family, at));
    }
    Ok(out)
}
