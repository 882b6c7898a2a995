//! Which request comes to which function: a list, the narrowest first.

use std::{borrow::Cow, cmp::Reverse};

use hyper::Method;

use super::{
    config::{HostPattern, PathPattern, RouteConfig, Segment},
    weights::Weighted,
};

/// All routes; `T` is what they lead to.
pub(super) struct Table<T> {
    routes: Vec<Route<T>>,
}

/// One of them.
pub(super) struct Route<T> {
    host: Option<HostPattern>,
    path: PathPattern,
    exact: bool,
    /// None: any.
    methods: Option<Vec<Method>>,
    /// Parts of a path that are taken off.
    pub(super) strip: usize,
    pub(super) targets: Weighted<T>,
}

/// Where a request comes to.
pub(super) struct Found<'a, T> {
    pub(super) route: &'a Route<T>,
    /// Names and values of the path's parameters.
    pub(super) parameters: Vec<(&'a str, String)>,
}

/// Why it comes nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing is served for this host: 421.
    Host,
    /// Nothing is at this path: 404.
    Path,
    /// What is there takes these methods only: 405.
    Method(String),
}

impl<T> Route<T> {
    pub(super) fn new(config: &RouteConfig, targets: Weighted<T>) -> Self {
        Self {
            host: config.host.clone(),
            path: config.path.clone(),
            exact: config.exact,
            methods: config.methods.as_ref().map(|methods| methods.iter().map(|method| method.0.clone()).collect()),
            strip: if config.strips() { config.path.0.len() } else { 0 },
            targets,
        }
    }

    fn map(&self, change: impl Fn(&T) -> T) -> Self {
        Self {
            host: self.host.clone(),
            path: self.path.clone(),
            exact: self.exact,
            methods: self.methods.clone(),
            strip: self.strip,
            targets: self.targets.map(change),
        }
    }

    /// The larger, the fewer requests it is for.
    fn narrowness(&self) -> impl Ord + use<T> {
        let host = match &self.host {
            None => 0,
            Some(HostPattern::Below(suffix)) => suffix.len(),
            Some(HostPattern::Exact(_)) => usize::MAX,
        };
        let parts: Vec<bool> = self.path.0.iter().map(|part| matches!(part, Segment::Literal(_))).collect();
        (host, parts, self.exact, self.methods.is_some())
    }

    fn is_for_host(&self, host: &str) -> bool {
        self.host.as_ref().is_none_or(|pattern| pattern.matches(host))
    }

    fn is_for_path(&self, path: &[Cow<'_, str>]) -> bool {
        let wanted = &self.path.0;
        let fits = if self.exact { path.len() == wanted.len() } else { path.len() >= wanted.len() };
        fits && wanted.iter().zip(path).all(|(wanted, part)| match wanted {
            Segment::Literal(text) => text == part,
            Segment::Parameter(_) => !part.is_empty(),
        })
    }

    fn takes(&self, method: &Method) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }

    fn parameters(&self, path: &[Cow<'_, str>]) -> Vec<(&str, String)> {
        let parts = self.path.0.iter().zip(path);
        let named = parts.filter_map(|(wanted, part)| match wanted {
            Segment::Parameter(name) => Some((name.as_str(), part.clone().into_owned())),
            Segment::Literal(_) => None,
        });
        named.collect()
    }
}

impl<T> Table<T> {
    pub(super) fn new(mut routes: Vec<Route<T>>) -> Self {
        routes.sort_by_key(|route| Reverse(route.narrowness()));
        Self { routes }
    }

    /// The same routes to other targets.
    pub(super) fn map(&self, change: impl Fn(&T) -> T) -> Self {
        Self { routes: self.routes.iter().map(|route| route.map(&change)).collect() }
    }

    /// `host` is in small letters and without a port; `path` are its parts.
    pub(super) fn find(&self, host: &str, path: &[Cow<'_, str>], method: &Method) -> Result<Found<'_, T>, Lost> {
        let of_host = move || self.routes.iter().filter(move |route| route.is_for_host(host));
        let of_path = move || of_host().filter(move |route| route.is_for_path(path));
        if let Some(route) = of_path().find(|route| route.takes(method)) {
            return Ok(Found { route, parameters: route.parameters(path) });
        }
        let mut methods: Vec<&str> =
            of_path().flat_map(|route| route.methods.iter().flatten()).map(Method::as_str).collect();
        methods.sort_unstable();
        methods.dedup();
        match (methods.is_empty(), of_host().next().is_some()) {
            (false, _) => Err(Lost::Method(methods.join(", "))),
            (true, true) => Err(Lost::Path),
            (true, false) => Err(Lost::Host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::{config::Config, path::segments};

    /// Routes lead to their numbers.
    fn table(routes: &str) -> Table<usize> {
        let text = format!(
            "[functions.web]\nimage = \"web\"\n{}",
            routes.replace("[[routes]]", "[[routes]]\nfunction = \"web\"")
        );
        let config = Config::parse(&text).unwrap();
        Table::new(
            config
                .routes
                .iter()
                .enumerate()
                .map(|(number, route)| Route::new(route.get_ref(), Weighted::new(vec![(1, number)])))
                .collect(),
        )
    }

    fn find(table: &Table<usize>, method: &str, host: &str, path: &str) -> Result<usize, Lost> {
        let path = segments(path).unwrap();
        table
            .find(host, &path, &Method::from_bytes(method.as_bytes()).unwrap())
            .map(|found| *found.route.targets.next())
    }

    #[test]
    fn the_narrower_route_counts_whatever_stands_first() {
        let table = table(
            "[[routes]]\npath = \"/\"\n[[routes]]\npath = \"/api\"\n[[routes]]\npath = \"/api/{id}\"\n\
             [[routes]]\npath = \"/api/new\"\n[[routes]]\npath = \"/api\"\nexact = true\n\
             [[routes]]\nhost = \"*.org\"\n[[routes]]\nhost = \"*.b.org\"\n[[routes]]\nhost = \"a.b.org\"\npath = \"/only\"",
        );
        for (host, path, expected) in [
            ("x", "/", 0),
            ("x", "/apis", 0),
            ("x", "/api/", 1),
            ("x", "/api", 4),
            ("x", "/api/7/more", 2),
            ("x", "/api/new", 3),
            ("x", "/%61pi", 4),
            ("x.org", "/api", 5),
            ("org", "/", 0),
            ("a.b.org", "/", 6),
            ("a.b.org", "/only", 7),
        ] {
            assert_eq!(find(&table, "GET", host, path), Ok(expected), "{host}{path}");
        }
    }

    #[test]
    fn what_comes_nowhere_is_told_why() {
        let table = table(
            "[[routes]]\nhost = \"a\"\npath = \"/x\"\nmethods = [\"PUT\", \"GET\"]\n[[routes]]\nhost = \"a\"\npath = \"/x\"\nmethods = [\"POST\"]",
        );
        assert_eq!(find(&table, "POST", "a", "/x"), Ok(1));
        assert_eq!(find(&table, "DELETE", "a", "/x"), Err(Lost::Method("GET, POST, PUT".into())));
        assert_eq!(find(&table, "GET", "a", "/"), Err(Lost::Path));
        assert_eq!(find(&table, "GET", "b", "/x"), Err(Lost::Host));
    }

    #[test]
    fn parameters_have_names_and_are_not_empty() {
        let table = table("[[routes]]\npath = \"/u/{id}/p/{Kind}\"");
        let path = segments("/u/4%20a/p/b/rest").unwrap();
        let found = table.find("x", &path, &Method::GET).unwrap_or_else(|lost| panic!("{lost:?}"));
        assert_eq!(found.parameters, [("id", "4 a".to_owned()), ("kind", "b".to_owned())]);
        assert_eq!(found.route.strip, 4);
        assert_eq!(find(&table, "GET", "x", "/u//p/b"), Err(Lost::Path));
    }
}
