//! RFC 6230 media control channels and the msc-dist-conf/1.0 package, without I/O.
