# Servers that Plenum has started and stopped by its hooks, beside those that run always: a group for each,
# named by its svr-id, on the machine whose address stands in cluster.reserved.
#
#   nomad job run reserved.nomad.hcl        none of them runs yet
#
# The others have, in their configuration:
#
#   [load]
#   max = 20000                             below min a server gives its callers away and can be stopped
#   min = 2000
#
#   [cluster]
#   reserved = ["C=sip:cfw@192.0.2.13:5060"]
#   start_hook = "/etc/plenum/start"        start and stop of this directory; `nomad` on the path, NOMAD_ADDR
#   stop_hook = "/etc/plenum/stop"          and a NOMAD_TOKEN that may scale this job in the environment

job "plenum-reserved" {
  type = "service"

  group "C" {
    count = 0

    constraint {
      attribute = "${attr.unique.network.ip-address}"
      value     = "192.0.2.13"
    }

    network {
      mode = "host"
      port "sip" { static = 5060 }
      port "cfw" { static = 7563 }
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
        PLENUM_SERVER_ID              = "C"
        PLENUM_SERVER_DRAIN_TIMEOUT_S = "30"
        PLENUM_SIP_LISTEN             = "udp:192.0.2.13:5060,tcp:192.0.2.13:5060"
        PLENUM_RTP_ADDRESS            = "192.0.2.13"
        PLENUM_CLUSTER_LISTEN         = "192.0.2.13:7563"
        PLENUM_CLUSTER_PEERS          = "sip:cfw@192.0.2.11:5060,sip:cfw@192.0.2.12:5060"
        PLENUM_CLUSTER_TRUSTED        = "192.0.2.0/28"
        PLENUM_CLUSTER_STANDBY        = "true"
        PLENUM_LOAD_MAX               = "20000"
        PLENUM_LOAD_MIN               = "2000"
      }

      resources {
        cores  = 2
        memory = 1024
      }
    }
  }
}
