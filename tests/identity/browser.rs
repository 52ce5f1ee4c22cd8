//! A browser without scripts: cookies by host and path, redirects, and the forms of the provider.

use crate::harness::client::{ClientResponse, Connection};

/// The host of the pages behind Portico.
pub(crate) const SHOP: &str = "http://shop.example";

/// A browser with its cookies.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    /// The address of `shop.example`, which a load balancer may change at any time.
    pub(crate) shop: String,
    pub(crate) cookies: Vec<Cookie>,
}

#[derive(Clone, Debug)]
pub(crate) struct Cookie {
    host: String,
    path: String,
    pub(crate) name: String,
    pub(crate) value: String,
    /// The attributes, as the response had them.
    pub(crate) attributes: String,
}

impl Cookie {
    /// Whether a URL has the host of the cookie.
    pub(crate) fn is_of(&self, url: &str) -> bool {
        self.host == split(url).0
    }
}

/// What a request has led to.
pub(crate) struct Page {
    /// The URL of the response. If the browser had to stop, the URL that it did not request.
    pub(crate) url: String,
    pub(crate) response: ClientResponse,
}

impl Browser {
    pub(crate) fn new(shop: String) -> Browser {
        Browser { shop, cookies: Vec::new() }
    }

    /// Opens a URL and follows redirects.
    pub(crate) fn open(&mut self, url: &str) -> Page {
        self.follow("GET", url, "", None)
    }

    /// Sends a form and follows redirects.
    pub(crate) fn submit(&mut self, url: &str, form: &str) -> Page {
        self.follow("POST", url, form, None)
    }

    /// Fills in the forms of the provider until the browser is back at the shop.
    pub(crate) fn log_in(&mut self, page: Page, user: &str) -> Page {
        self.fill_in(page, user, None)
    }

    /// As [`Browser::log_in`], but the browser is stopped before it returns to the shop.
    pub(crate) fn log_in_until_callback(&mut self, page: Page, user: &str) -> String {
        let page = self.fill_in(page, user, Some(SHOP));
        assert!(page.url.starts_with("http://shop.example/callback?code="), "{}", page.url);
        page.url
    }

    /// One request, without following a redirect.
    pub(crate) fn request(&mut self, method: &str, url: &str, fields: &str, form: &str) -> ClientResponse {
        let (host, target) = split(url);
        let address = if url.starts_with(SHOP) { &self.shop } else { host };
        let path = target.split('?').next().unwrap();
        let cookies = self.cookies.iter().filter(|cookie| cookie.host == host && path.starts_with(&cookie.path));
        let cookies: Vec<String> = cookies.map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        let accept = "accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{accept}{fields}");
        if !cookies.is_empty() {
            request += &format!("cookie: {}\r\n", cookies.join("; "));
        }
        if method == "POST" {
            let length = form.len();
            request += &format!("content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n");
        }
        request += &format!("\r\n{form}");
        let response = Connection::open(address).and_then(|mut connection| connection.send(&request));
        let response = response.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
        let host = host.to_owned();
        for line in response.head.lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            if name.eq_ignore_ascii_case("set-cookie") {
                self.store(&host, value);
            }
        }
        response
    }

    /// The names of the cookies of the shop.
    pub(crate) fn shop_cookies(&self) -> Vec<&str> {
        let cookies = self.cookies.iter().filter(|cookie| cookie.host == "shop.example");
        cookies.map(|cookie| &*cookie.name).collect()
    }

    fn fill_in(&mut self, mut page: Page, user: &str, stop_before: Option<&str>) -> Page {
        for _ in 0..MAX_STEPS {
            if !page.url.contains("/interaction/") {
                return page;
            }
            let prompt = input(&page.response.body, "prompt").expect("the form has a prompt");
            let form = format!("prompt={prompt}&login={user}&password=any");
            let url = page.url;
            page = self.follow("POST", &url, &form, stop_before);
        }
        panic!("the provider shows form after form: {}", page.url);
    }

    fn follow(&mut self, method: &str, url: &str, form: &str, stop_before: Option<&str>) -> Page {
        let mut response = self.request(method, url, "", form);
        let mut url = url.to_owned();
        for _ in 0..MAX_STEPS {
            let Some(location) = response.field("location").filter(|_| (301..=303).contains(&response.status)) else {
                return Page { url, response };
            };
            url = match location.starts_with('/') {
                true => format!("http://{}{location}", split(&url).0),
                false => location.to_owned(),
            };
            if stop_before.is_some_and(|prefix| url.starts_with(prefix)) {
                return Page { url, response };
            }
            response = self.request("GET", &url, "", "");
        }
        panic!("a loop of redirects at {url}");
    }

    fn store(&mut self, host: &str, line: &str) {
        let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
        let (name, value) = pair.split_once('=').unwrap();
        let mut path = "/";
        for attribute in attributes.split(';').map(str::trim) {
            if let Some((key, found)) = attribute.split_once('=')
                && key.eq_ignore_ascii_case("path")
            {
                path = found;
            }
        }
        self.cookies.retain(|cookie| (&*cookie.host, &*cookie.path, &*cookie.name) != (host, path, name));
        // Both servers remove cookies by an empty value and a date in the past.
        if !value.is_empty() && !attributes.contains("Max-Age=0") {
            self.cookies.push(Cookie {
                host: host.to_owned(),
                path: path.to_owned(),
                name: name.to_owned(),
                value: value.to_owned(),
                attributes: attributes.to_owned(),
            });
        }
    }
}

/// The value of a hidden field in a form.
pub(crate) fn input(page: &str, name: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// Host and target of a URL.
fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").expect("a URL without TLS");
    rest.split_at(rest.find('/').unwrap_or(rest.len()))
}

/// More redirects or forms are a loop.
const MAX_STEPS: usize = 20;
