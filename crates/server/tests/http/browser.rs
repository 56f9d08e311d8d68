//! An HTTP client that is nothing but a socket, so that paths are sent as they are written.

use super::*;

pub(crate) struct Browser {
    address: SocketAddr,
    login: Option<String>,
    prefix: &'static str,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl Browser {
    pub(crate) fn new(address: SocketAddr, login: Option<&str>) -> Self {
        Self { address, login: login.map(str::to_owned), prefix: "/api" }
    }

    /// guest:guest
    pub(crate) fn logged_in(address: SocketAddr) -> Self {
        Self::new(address, Some("Basic Z3Vlc3Q6Z3Vlc3Q="))
    }

    /// Without a login or the API's prefix.
    pub(crate) fn at_root(address: SocketAddr) -> Self {
        Self { address, login: None, prefix: "" }
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, document: Option<&Value>) -> Answer {
        self.exchange(method, path, &[], document.map(Value::to_string).unwrap_or_default()).await
    }

    pub(crate) async fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.exchange(method, path, headers, String::new()).await
    }

    pub(crate) async fn send_form(&self, path: &str, headers: &[(&str, &str)], form: &str) -> Answer {
        self.exchange("POST", path, headers, form.to_owned()).await
    }

    async fn exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!("{method} {}{path} HTTP/1.0\r\nContent-Length: {}\r\n", self.prefix, body.len());
        let login = self.login.as_deref().map(|login| ("Authorization", login));
        for (name, value) in headers.iter().copied().chain(login) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(&body);
        // A server that has refused need not read on.
        let _refused_early = socket.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = socket.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
        }
        let answer = String::from_utf8(answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), text: text.to_owned() }
    }
}
