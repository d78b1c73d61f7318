//! What the router is measured beside: HAProxy and nginx with the router's headers, and a relay that understands nothing.

use crate::routes::HOST;
use std::path::Path;
use tokio::net::{TcpListener, TcpStream};

/// Copies bytes both ways, until the process is killed: the floor that no proxy can be below.
pub(crate) async fn relay(from: &str, to: &str) {
    let listener = TcpListener::bind(from).await.unwrap();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let to = to.to_owned();
        tokio::spawn(async move {
            let mut app = TcpStream::connect(to).await?;
            client.set_nodelay(true)?;
            app.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut app).await
        });
    }
}

/// HAProxy's configuration. A log goes to its standard output, line by line: it gathers none.
pub(crate) fn haproxy(address: &str, app: &str, connections: usize, is_logged: bool) -> String {
    let log = if is_logged { " log stdout format raw local0 info\n option httplog\n" } else { "" };
    format!(
        "global\n nbthread 1\n maxconn {connections}\ndefaults\n mode http\n timeout connect 3s\n timeout client 75s\n \
         timeout server 60s\n timeout tunnel 1h\n http-reuse safe\n{log}frontend f\n bind {address}\n option forwardfor\n \
         unique-id-format %{{+X}}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid\n unique-id-header X-Request-Id\n \
         http-request set-header X-Forwarded-Proto http\n http-request set-header X-Forwarded-Port 80\n \
         http-request set-header X-Forwarded-Host %[req.hdr(Host)]\n use_backend b if {{ req.hdr(Host) -i {HOST} }}\n\
         backend b\n server s {app} pool-max-conn 10000\n"
    )
}

/// nginx's configuration. Large bodies are streamed, as by the others, and log lines gathered, as by the router.
pub(crate) fn nginx(address: &str, app: &str, dir: &Path, is_logged: bool) -> String {
    let dir = dir.display();
    let log = if is_logged { format!("{dir}/access.log combined buffer=32k flush=1s") } else { "off".to_owned() };
    let location = |path: &str, connection: &str, more: &str| {
        format!(
            "location {path} {{ proxy_pass http://u; proxy_http_version 1.1;\n \
             proxy_set_header Connection {connection}; proxy_set_header Host $host;\n \
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto http;\n \
             proxy_set_header X-Forwarded-Port 80; proxy_set_header X-Forwarded-Host $host;\n \
             proxy_set_header X-Request-Id $request_id;{more} }}\n "
        )
    };
    let plain = location("/", "\"\"", "");
    let streamed = location("/stream", "\"\"", " proxy_request_buffering off; proxy_max_temp_file_size 0;");
    let tunnel = location("/tunnel", "upgrade", " proxy_set_header Upgrade $http_upgrade;");
    format!(
        "worker_processes 1;\ndaemon off;\nmaster_process off;\nuser root;\npid {dir}/nginx.pid;\n\
         error_log {dir}/nginx.log;\nevents {{ worker_connections 20000; }}\nhttp {{\n access_log {log};\n \
         client_body_temp_path {dir}/t1;\n proxy_temp_path {dir}/t2;\n fastcgi_temp_path {dir}/t3;\n \
         uwsgi_temp_path {dir}/t4;\n scgi_temp_path {dir}/t5;\n keepalive_requests 100000000;\n \
         client_max_body_size 0;\n upstream u {{ server {app}; keepalive 1000; keepalive_requests 100000000; }}\n \
         server {{ listen {address}; server_name {HOST};\n {plain}{streamed}{tunnel}}}\n}}\n"
    )
}
