//! The table of everything that is served: what requests are led by, and what `/api/openapi.json` is made of.
//!
//! It is written as axum's own `Router` would be. Beside each handler the table keeps its type's name and those of what
//! it takes, so that the document says what the code says.

use super::Api;
use axum::Router;
use axum::handler::Handler;
use axum::http::header;
use axum::routing::MethodRouter;
use std::any::type_name;
use std::sync::Arc;

/// All paths.
#[derive(Debug, Default)]
pub(super) struct Routes {
    router: Router<Arc<Api>>,
    entries: Vec<Entry>,
}

/// A method of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Below `/api`, with names in braces.
    pub(super) path: String,
    pub(super) operation: Operation,
}

/// What serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// In lower case.
    pub(super) method: &'static str,
    /// The name of the handler's type.
    pub(super) handler: &'static str,
    /// The names of the types that it takes.
    pub(super) takes: &'static str,
}

/// The methods of one path.
#[derive(Debug)]
pub(super) struct Methods {
    router: MethodRouter<Arc<Api>>,
    operations: Vec<Operation>,
}

impl Routes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a path. `OPTIONS` of it tells its methods.
    pub(super) fn route(mut self, path: &str, methods: Methods) -> Self {
        let path_of = |operation| Entry { path: path.to_owned(), operation };
        self.entries.extend(methods.operations.iter().copied().map(path_of));
        let allowed = methods.allowed();
        let options = async move || [(header::ALLOW, allowed)];
        self.router = self.router.route(path, methods.router.options(options));
        self
    }

    /// Adds the paths of a resource.
    pub(super) fn merge(mut self, routes: Self) -> Self {
        self.entries.extend(routes.entries);
        self.router = self.router.merge(routes.router);
        self
    }

    /// Adds paths below this one.
    pub(super) fn nest(mut self, path: &str, routes: Self) -> Self {
        let below = |entry: Entry| Entry { path: format!("{path}{}", entry.path), ..entry };
        self.entries.extend(routes.entries.into_iter().map(below));
        self.router = self.router.nest(path, routes.router);
        self
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn into_router(self) -> Router<Arc<Api>> {
        self.router
    }
}

impl Methods {
    fn new() -> Self {
        Self { router: MethodRouter::new(), operations: Vec::new() }
    }

    pub(super) fn get<H: Handler<T, Arc<Api>>, T: 'static>(mut self, handler: H) -> Self {
        self.operations.push(operation::<H, T>("get"));
        self.router = self.router.get(handler);
        self
    }

    pub(super) fn put<H: Handler<T, Arc<Api>>, T: 'static>(mut self, handler: H) -> Self {
        self.operations.push(operation::<H, T>("put"));
        self.router = self.router.put(handler);
        self
    }

    pub(super) fn post<H: Handler<T, Arc<Api>>, T: 'static>(mut self, handler: H) -> Self {
        self.operations.push(operation::<H, T>("post"));
        self.router = self.router.post(handler);
        self
    }

    pub(super) fn delete<H: Handler<T, Arc<Api>>, T: 'static>(mut self, handler: H) -> Self {
        self.operations.push(operation::<H, T>("delete"));
        self.router = self.router.delete(handler);
        self
    }

    /// What the header `Allow` says.
    fn allowed(&self) -> String {
        let mut allowed: Vec<_> = self.operations.iter().map(|operation| operation.method.to_uppercase()).collect();
        if allowed.iter().any(|method| method == "GET") {
            allowed.insert(0, "HEAD".to_owned());
        }
        allowed.push("OPTIONS".to_owned());
        allowed.join(", ")
    }
}

fn operation<H, T>(method: &'static str) -> Operation {
    Operation { method, handler: type_name::<H>(), takes: type_name::<T>() }
}

pub(super) fn get<H: Handler<T, Arc<Api>>, T: 'static>(handler: H) -> Methods {
    Methods::new().get(handler)
}

pub(super) fn put<H: Handler<T, Arc<Api>>, T: 'static>(handler: H) -> Methods {
    Methods::new().put(handler)
}

pub(super) fn post<H: Handler<T, Arc<Api>>, T: 'static>(handler: H) -> Methods {
    Methods::new().post(handler)
}

pub(super) fn delete<H: Handler<T, Arc<Api>>, T: 'static>(handler: H) -> Methods {
    Methods::new().delete(handler)
}
