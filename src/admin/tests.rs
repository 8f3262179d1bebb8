use super::*;
use axum::body::Body;
use axum::http::Request;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

fn admin() -> Admin {
    let telemetry = Telemetry::start(&crate::http::settings::Telemetry::default()).unwrap();
    let spread = Arc::new(Spread::new(1).0);
    let (snapshot, vitals) = (Current::default(), Arc::default());
    let token = Arc::new(Token::open(tempfile::tempdir().unwrap().path()));
    Admin { snapshot, vitals, telemetry: Arc::new(telemetry), spread, hosts: Arc::new([]), token }
}

async fn ask(admin: &Admin, method: &str, path: &str) -> Response {
    let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1").body(Body::empty()).unwrap();
    TowerToHyperService::new(router(admin.clone())).call(request).await.unwrap()
}

#[tokio::test]
async fn readiness_follows_the_gateways_life_and_health_does_not() {
    let admin = admin();
    for (phase, ready) in [(Phase::Starting, 503), (Phase::Serving, 200), (Phase::Leaving, 503), (Phase::Draining, 503)]
    {
        admin.vitals.enter(phase);
        assert_eq!(ask(&admin, "GET", "/readyz").await.status(), ready, "{phase:?}");
        assert_eq!(ask(&admin, "GET", "/healthz").await.status(), 200, "{phase:?}");
    }
}

#[tokio::test]
async fn methods_and_paths_that_are_not_there_are_told_in_json() {
    let admin = admin();
    let response = ask(&admin, "POST", "/services").await;
    assert_eq!(response.status(), 405);
    assert!(response.headers()["allow"].to_str().unwrap().contains("GET"));
    for (method, path) in [("POST", "/services"), ("DELETE", "/metrics"), ("GET", "/nowhere")] {
        let response = ask(&admin, method, path).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    assert_eq!(ask(&admin, "HEAD", "/services").await.status(), 200);
}
