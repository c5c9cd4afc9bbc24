//! The memory driver, whose stores can be read beside the engine.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use cutover::store::memory::MemoryDriver;
use cutover::store::{Driver, Store};
use cutover_formats::{Family, Layout as _, Record, RowId, V1};

#[derive(Default)]
pub(crate) struct Disks {
    memory: MemoryDriver,
    /// The handles are the engine's: a store that nobody holds is closed.
    open: Mutex<Vec<(PathBuf, Weak<dyn Store>)>>,
}

impl Driver for Disks {
    fn name(&self) -> &str {
        self.memory.name()
    }

    fn open(&self, path: &Path) -> cutover::Result<Arc<dyn Store>> {
        let store = self.memory.open(path)?;
        self.open.lock().unwrap().push((path.to_owned(), Arc::downgrade(&store)));
        Ok(store)
    }

    fn destroy(&self, path: &Path) -> cutover::Result<()> {
        self.memory.destroy(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.memory.exists(path)
    }
}

/// The rows of one store.
pub(crate) type Rows = Vec<(RowId<'static>, Record)>;

impl Disks {
    /// What a kill of the process does to every store.
    pub(crate) fn kill(&self) {
        // Not under the lock: a mutex of the machine must not be held where the scheduler may let another thread go on.
        let paths: Vec<_> = self.open.lock().unwrap().iter().map(|(path, _)| path.clone()).collect();
        paths.iter().for_each(|path| self.memory.kill(path));
    }

    /// Every row of every store that is open, store by store.
    pub(crate) fn rows(&self) -> Vec<Rows> {
        let open: Vec<_> =
            self.open.lock().unwrap().iter().filter_map(|(_, store)| store.upgrade()).collect();
        open.iter()
            .map(|store| Family::ALL.iter().flat_map(|family| rows_of(&**store, *family)).collect())
            .collect()
    }
}

fn rows_of(store: &dyn Store, family: Family) -> Rows {
    let mut rows = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        let (_, id) = V1.read_key(family, key).unwrap();
        let record = V1.read_value(&id, value).unwrap();
        rows.push((id, record));
        std::ops::ControlFlow::Continue(())
    };
    store.scan(family, b"", b"", &mut visit).unwrap();
    rows
}
