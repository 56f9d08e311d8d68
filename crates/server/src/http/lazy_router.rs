//! Routes that are made when the first request comes: all of the API takes half a megabyte, and a fifth of the time of a
//! start, and many servers are never asked.

use axum::Router;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// See the module.
#[derive(Clone)]
pub(super) struct LazyRouter(Arc<LazyLock<Router, Box<dyn FnOnce() -> Router + Send>>>);

impl LazyRouter {
    pub(super) fn new(make: impl FnOnce() -> Router + Send + 'static) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(make))))
    }

    /// The routes.
    pub(super) fn get(&self) -> Router {
        Router::clone(&self.0)
    }
}

impl From<Router> for LazyRouter {
    fn from(router: Router) -> Self {
        Self::new(|| router)
    }
}

impl fmt::Debug for LazyRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LazyRouter")
    }
}
