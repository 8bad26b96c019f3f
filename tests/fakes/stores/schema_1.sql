-- A store of schema 1 as the program wrote it that knew no other: a session that starts, one that failed, a cursor.
BEGIN TRANSACTION;
CREATE TABLE cursors (
            device_id    TEXT PRIMARY KEY,
            event_number INTEGER NOT NULL        -- the agent's last event that was applied
        );
INSERT INTO "cursors" VALUES('cpu-0',9);
CREATE TABLE schema_versions (
    version    INTEGER PRIMARY KEY,              -- each migration that was applied, from 1
    apply_time TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
INSERT INTO "schema_versions" VALUES(1,'2026-11-26T07:08:18.456Z');
CREATE TABLE sessions (
            id             TEXT PRIMARY KEY,     -- the part of the name after "sessions/"
            create_time_us INTEGER NOT NULL,     -- microseconds since 1970, no two alike
            state          TEXT NOT NULL,        -- "starting", "running", …
            device_id      TEXT,
            attempt        INTEGER NOT NULL,
            revision       INTEGER NOT NULL,
            request_id     TEXT,                 -- the client's name of the request
            request_digest TEXT,                 -- hash of the request
            payload        BLOB NOT NULL,        -- the client's session, serialized gpu_balancer.v1.Session
            fixed          TEXT NOT NULL,        -- JSON: workload, labels, priority, traceparent
            changing       TEXT NOT NULL         -- JSON: reservation, conditions, progress, failure, times
        );
INSERT INTO "sessions" VALUES('session-1',1893456000001000,'starting','cpu-0',1,1,NULL,NULL,X'0074686520636C69656E74277320776F726473FF','{"priority":"live","labels":{},"traceparent":null,"workload":{"decode":{"codec":"h264","width":1280,"height":720,"bit_depth":8,"chroma":"4:2:0","pixels_per_second":27648000,"rotated":false},"scale_pixels_per_second":18662400,"encodes":[{"codec":"h264","width":1280,"height":720,"bit_depth":8,"speed":"p3","pixels_per_second":27648000},{"codec":"h264","width":854,"height":480,"bit_depth":8,"speed":"p3","pixels_per_second":12297600},{"codec":"h264","width":640,"height":360,"bit_depth":8,"speed":"p3","pixels_per_second":6912000}],"real_time":true,"allow_software_encode":false}}','{"reservation":{"device_id":"cpu-0","cost_pixels_per_second":123,"device":{"6":2500000},"host":{}}}');
INSERT INTO "sessions" VALUES('session-2',1893456000002000,'failed','cpu-0',1,1099511627776,'request-1','ab12',X'0074686520636C69656E74277320776F726473FF','{"priority":"live","labels":{"owner":"Zoë","":"quote \" and \\"},"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","workload":{"decode":{"codec":"h264","width":1280,"height":720,"bit_depth":8,"chroma":"4:2:0","pixels_per_second":27648000,"rotated":false},"scale_pixels_per_second":18662400,"encodes":[{"codec":"h264","width":1280,"height":720,"bit_depth":8,"speed":"p3","pixels_per_second":27648000},{"codec":"h264","width":854,"height":480,"bit_depth":8,"speed":"p3","pixels_per_second":12297600},{"codec":"h264","width":640,"height":360,"bit_depth":8,"speed":"p3","pixels_per_second":6912000}],"real_time":true,"allow_software_encode":false}}','{"reservation":{"device_id":"cpu-0","cost_pixels_per_second":123,"device":{"6":2500000},"host":{}},"conditions":[["STALLED","No frame for 10 s.",1893456000000000]],"progress":{"frames":1099511627776,"frames_per_second":29.97,"speed":1.01,"duplicated_frames":3,"dropped_frames":4,"out_time_us":3456000000001,"written_bytes":1125899906842624,"total_time_us":7500000},"failure":["DISK_FULL","No room.",228,["one","two three"]],"ingest_url":"rtmp://127.0.0.1/key","running_time_us":1893456000000001,"end_time_us":1893542400000000,"stop_requested":true}');
COMMIT;
