//! What the worker serves: its admin port, and what `/readyz` there asks.

use posthorn_bus::Link;
use posthorn_process::admin::{Dependency, dependency};
use posthorn_store::Store;
use tokio::sync::watch;

pub fn dependencies(store: &Store, consuming: &Link, is_loaded: watch::Receiver<bool>) -> Vec<Dependency> {
    let (store, consuming) = (store.clone(), consuming.clone());
    vec![
        dependency("database", true, move || {
            let store = store.clone();
            async move { store.ping().await.map_err(|error| error.to_string()) }
        }),
        dependency("subscriptions", true, move || {
            let loaded = *is_loaded.borrow();
            async move { if loaded { Ok(()) } else { Err("not loaded yet".to_owned()) } }
        }),
        dependency("broker", true, move || {
            let up = consuming.is_up();
            async move { if up { Ok(()) } else { Err("not consuming".to_owned()) } }
        }),
    ]
}
