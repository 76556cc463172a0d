# A service that Nomad's autoscaler grows and shrinks by the load that the servers themselves report.
#
#   nomad job run plenum.nomad.hcl
#
# The autoscaler needs its Prometheus plugin ("prometheus", pointed at a Prometheus that scrapes the
# Nomad service "plenum"); everything else is Nomad's own. Each server has a machine of its own: its media
# threads keep cores busy.

job "plenum" {
  type = "service"

  group "servers" {
    count = 2

    constraint {
      distinct_hosts = true
    }

    scaling {
      enabled = true
      min     = 2
      max     = 10

      policy {
        evaluation_interval = "5s"
        # Shrinking is not urgent, and moves callers.
        cooldown = "10m"
        # A newcomer takes callers within seconds; what it does to the load shows after some more.
        cooldown_on_scale_up = "30s"

        check "load" {
          source       = "prometheus"
          query        = "avg(plenum_load / plenum_load_max)"
          query_window = "15s"

          # As many servers as bring the mean to this share of max-load.
          strategy "target-value" {
            target    = 0.7
            threshold = 0.1
          }
        }
      }
    }

    network {
      mode = "host"
      port "sip" { static = 5060 }
      port "cfw" { static = 7563 }
      port "http" { static = 8080 }
    }

    # Found by Prometheus, and by servers that start: see the template.
    service {
      name     = "plenum"
      provider = "nomad"
      port     = "http"

      check {
        type     = "http"
        path     = "/healthz"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "server" {
      driver      = "exec"
      kill_signal = "SIGTERM"
      # Above server.drain_timeout_s.
      kill_timeout = "60s"

      config {
        command = "/usr/local/bin/plenum"
        args    = ["serve"]
      }

      env {
        PLENUM_SERVER_ID              = "n${NOMAD_ALLOC_INDEX}"
        PLENUM_SERVER_DRAIN_TIMEOUT_S = "30"
        PLENUM_SIP_LISTEN             = "udp:${attr.unique.network.ip-address}:5060,tcp:${attr.unique.network.ip-address}:5060"
        PLENUM_RTP_ADDRESS            = "${attr.unique.network.ip-address}"
        PLENUM_CLUSTER_LISTEN         = "${attr.unique.network.ip-address}:7563"
        PLENUM_CLUSTER_TRUSTED        = "192.0.2.0/24"
        PLENUM_HTTP_LISTEN            = "${attr.unique.network.ip-address}:8080"
      }

      # Those that run now. The first one finds nobody and is found by the next.
      template {
        data        = "PLENUM_CLUSTER_PEERS={{ range $i, $s := nomadService \"plenum\" }}{{ if $i }},{{ end }}sip:cfw@{{ $s.Address }}:5060{{ end }}"
        destination = "local/peers.env"
        env         = true
        change_mode = "noop"
      }

      resources {
        cores  = 2
        memory = 1024
      }
    }
  }
}
