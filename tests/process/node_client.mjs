// A client in another language, from the proto files alone: Node's official gRPC client.
// node node_client.mjs ADDRESS PROTO_FOLDER MEDIA_FILE     prints one JSON document of what it saw.
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const [address, protoFolder, mediaFile] = process.argv.slice(2);
const files = ['session_service', 'device_service', 'balancer_service'].map((name) => `gpu_balancer/v1/${name}.proto`);
const definition = protoLoader.loadSync(files, { includeDirs: [protoFolder], longs: Number, enums: String, oneofs: true });
const api = grpc.loadPackageDefinition(definition).gpu_balancer.v1;
const connect = (service) => new api[service](address, grpc.credentials.createInsecure());
const [sessions, devices, balancer] = ['SessionService', 'DeviceService', 'BalancerService'].map(connect);

const call = (client, method, request) =>
  new Promise((resolve, reject) => {
    const deadline = new Date(Date.now() + 30000);
    client[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
const collect = (stream) =>
  new Promise((resolve, reject) => {
    const messages = [];
    stream.on('data', (message) => messages.push(message));
    stream.on('error', reject);
    stream.on('end', () => resolve(messages));
  });

const spec = {
  transcode: {
    input: { uri: mediaFile },
    renditions: [{ id: 'small', encode: { codec: 'VIDEO_CODEC_H264', height: 96 } }],
  },
  labels: { client: 'node' },
};
const { version } = await call(balancer, 'getBalancer', {});
const listed = await call(devices, 'listDevices', {});
const created = await call(sessions, 'createSession', { session: spec, requestId: 'from-node' });
const again = await call(sessions, 'createSession', { session: spec, requestId: 'from-node' });
const watched = await collect(sessions.watchSession({ name: created.session.name }));
const last = watched.at(-1).session;
const { artifacts } = await call(sessions, 'listArtifacts', { parent: last.name });
const chunks = await collect(sessions.readArtifact({ name: artifacts[0].name }));
const bytes = chunks.reduce((sum, chunk) => sum + (chunk.data?.length ?? 0), 0);
const refused = await call(sessions, 'createSession', {
  session: { transcode: { input: { uri: mediaFile }, renditions: [{ encode: { width: 3, height: 3 } }] } },
}).catch((error) => error);

console.log(
  JSON.stringify({
    version,
    devices: listed.devices.map((device) => device.name),
    sameName: created.session.name === again.session.name,
    states: watched.map((message) => message.session.state),
    failure: last.failure,
    artifact: { path: artifacts[0].path, size: artifacts[0].sizeBytes, read: bytes },
    refusal: { code: refused.code, rich: refused.metadata.get('grpc-status-details-bin').length },
  }),
);
for (const client of [sessions, devices, balancer]) client.close();
