/*
 * A stand-in for libnvidia-ml.so.1 at the outermost edge: the real bindings load it, so everything above it is tested as
 * it ships. It describes the GPUs in the file named by FAKE_NVML_CONFIG, read again at every call, so that a test can
 * change a card while its agent runs. Without that variable it answers as a machine without a driver does.
 *
 * The file: lines "key = value"; those before the first "[gpu]" are the system's, the others that card's. The key
 * "errors" lists "symbol:code" pairs that fail; the symbol "*" stands for every call about that card, its handle too.
 * "hangs" lists symbols that do not return while they stand there. "events" lists "number/type/data", numbers rising: an
 * event set is told those that come after the card was registered with it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUCCESS 0
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define DRIVER_NOT_LOADED 9
#define TIMEOUT 10
#define GPU_IS_LOST 15
#define AMPERE 7
#define NO_INSTANCE 0xffffffffu
#define RECOVERY_ACTION 230
#define RECOVERY_ACTION_DRIVER 570
#define UNKNOWN 999
#define MOST_GPUS 16
#define TEXT 512
#define MOST_PROCESSES 16
#define MOST_EVENTS 64
#define LOOK_AGAIN_US 10000

/* A process that uses a card. One that draws is in the list of graphics, any other in that of computing. */
typedef struct {
    unsigned pid, encoder_utilization, decoder_utilization, encoder_sessions, draws;
    unsigned long long memory_bytes;
} Process;

/* Something that the driver reports of a card: 8 is an XID, which is its data. */
typedef struct {
    unsigned number;
    unsigned long long type, data;
} Event;

typedef struct {
    char uuid[96];
    char name[96];
    char errors[TEXT];
    char hangs[TEXT];
    unsigned domain, bus, device, architecture, video_clock_mhz;
    unsigned encoder_utilization, decoder_utilization, gpu_utilization, encoder_sessions, temperature, recovery_action;
    unsigned remap_pending, remap_failed, retired_pending, clock_reasons, slowdown_temperature, shutdown_temperature;
    unsigned long long uncorrected_errors, supported_events;
    unsigned long long memory_total_bytes, memory_used_bytes;
    unsigned process_count;
    Process processes[MOST_PROCESSES];
    unsigned event_count;
    Event events[MOST_EVENTS];
} Gpu;

typedef struct {
    char driver_version[80];
    char errors[TEXT];
    unsigned count;
    Gpu gpus[MOST_GPUS];
} Machine;

static void copy_text(char *target, size_t size, const char *value) {
    snprintf(target, size, "%s", value);
}

static void set_gpu_number(Gpu *gpu, const char *key, const char *value) {
    unsigned long long number = strtoull(value, NULL, 0);
    if (!strcmp(key, "domain")) gpu->domain = (unsigned)number;
    else if (!strcmp(key, "bus")) gpu->bus = (unsigned)number;
    else if (!strcmp(key, "device")) gpu->device = (unsigned)number;
    else if (!strcmp(key, "architecture")) gpu->architecture = (unsigned)number;
    else if (!strcmp(key, "video_clock_mhz")) gpu->video_clock_mhz = (unsigned)number;
    else if (!strcmp(key, "encoder_utilization")) gpu->encoder_utilization = (unsigned)number;
    else if (!strcmp(key, "decoder_utilization")) gpu->decoder_utilization = (unsigned)number;
    else if (!strcmp(key, "gpu_utilization")) gpu->gpu_utilization = (unsigned)number;
    else if (!strcmp(key, "encoder_sessions")) gpu->encoder_sessions = (unsigned)number;
    else if (!strcmp(key, "temperature")) gpu->temperature = (unsigned)number;
    else if (!strcmp(key, "recovery_action")) gpu->recovery_action = (unsigned)number;
    else if (!strcmp(key, "remap_pending")) gpu->remap_pending = (unsigned)number;
    else if (!strcmp(key, "remap_failed")) gpu->remap_failed = (unsigned)number;
    else if (!strcmp(key, "retired_pending")) gpu->retired_pending = (unsigned)number;
    else if (!strcmp(key, "clock_reasons")) gpu->clock_reasons = (unsigned)number;
    else if (!strcmp(key, "slowdown_temperature")) gpu->slowdown_temperature = (unsigned)number;
    else if (!strcmp(key, "shutdown_temperature")) gpu->shutdown_temperature = (unsigned)number;
    else if (!strcmp(key, "uncorrected_errors")) gpu->uncorrected_errors = number;
    else if (!strcmp(key, "supported_events")) gpu->supported_events = number;
    else if (!strcmp(key, "memory_total_bytes")) gpu->memory_total_bytes = number;
    else if (!strcmp(key, "memory_used_bytes")) gpu->memory_used_bytes = number;
    else {
        fprintf(stderr, "fake NVML: unknown key \"%s\"\n", key);
        abort();
    }
}

/* Reads "pid/encoder %/decoder %/encoder sessions/memory/draws", one after the other with a space between. */
static void set_processes(Gpu *gpu, const char *value) {
    int read;
    Process process;
    while (sscanf(value, " %u/%u/%u/%u/%llu/%u%n", &process.pid, &process.encoder_utilization,
                  &process.decoder_utilization, &process.encoder_sessions, &process.memory_bytes, &process.draws,
                  &read) == 6) {
        if (gpu->process_count == MOST_PROCESSES) abort();
        gpu->processes[gpu->process_count++] = process;
        value += read;
    }
}

/* Reads "number/type/data", one after the other with a space between. */
static void set_events(Gpu *gpu, const char *value) {
    int read;
    Event event;
    while (sscanf(value, " %u/%llu/%llu%n", &event.number, &event.type, &event.data, &read) == 3) {
        if (gpu->event_count == MOST_EVENTS) abort();
        gpu->events[gpu->event_count++] = event;
        value += read;
    }
}

static void set_gpu(Gpu *gpu, const char *key, const char *value) {
    if (!strcmp(key, "uuid")) copy_text(gpu->uuid, sizeof gpu->uuid, value);
    else if (!strcmp(key, "name")) copy_text(gpu->name, sizeof gpu->name, value);
    else if (!strcmp(key, "errors")) copy_text(gpu->errors, sizeof gpu->errors, value);
    else if (!strcmp(key, "hangs")) copy_text(gpu->hangs, sizeof gpu->hangs, value);
    else if (!strcmp(key, "processes")) set_processes(gpu, value);
    else if (!strcmp(key, "events")) set_events(gpu, value);
    else set_gpu_number(gpu, key, value);
}

/* Reads the configuration. False: there is none, so there is no driver. */
static int read_machine(Machine *machine) {
    char line[TEXT * 2];
    const char *path = getenv("FAKE_NVML_CONFIG");
    FILE *file = path && *path ? fopen(path, "r") : NULL;
    if (!file) return 0;
    memset(machine, 0, sizeof *machine);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!strcmp(line, "[gpu]")) {
            if (machine->count == MOST_GPUS) abort();
            machine->count++;
            continue;
        }
        char *separator = strstr(line, " = ");
        if (!separator) continue;
        *separator = 0;
        const char *value = separator + 3;
        if (machine->count) set_gpu(&machine->gpus[machine->count - 1], line, value);
        else if (!strcmp(line, "driver_version")) copy_text(machine->driver_version, sizeof machine->driver_version, value);
        else if (!strcmp(line, "errors")) copy_text(machine->errors, sizeof machine->errors, value);
    }
    fclose(file);
    return 1;
}

/* Finds the error that a list asks for a symbol; SUCCESS when it asks none. */
static int asked_error(const char *list, const char *symbol) {
    char copy[TEXT], *rest = copy, *pair;
    copy_text(copy, sizeof copy, list);
    while ((pair = strtok_r(rest, " ", &rest))) {
        char *code = strchr(pair, ':');
        if (!code) continue;
        *code = 0;
        if (!strcmp(pair, symbol) || !strcmp(pair, "*")) return atoi(code + 1);
    }
    return SUCCESS;
}

/* Whether a list of symbols names one, or all. */
static int is_named(const char *list, const char *symbol) {
    char copy[TEXT], *rest = copy, *name;
    copy_text(copy, sizeof copy, list);
    while ((name = strtok_r(rest, " ", &rest)))
        if (!strcmp(name, symbol) || !strcmp(name, "*")) return 1;
    return 0;
}

/* Opens the machine for a call about all of it. */
static int system_call(Machine *machine, const char *symbol) {
    if (!read_machine(machine)) return DRIVER_NOT_LOADED;
    return asked_error(machine->errors, symbol);
}

/* Opens the card behind a handle, which is its index plus 1. */
static int card_call(Machine *machine, void *handle, const char *symbol, Gpu **gpu) {
    int error = system_call(machine, symbol);
    uintptr_t number = (uintptr_t)handle;
    if (error) return error;
    if (number < 1 || number > machine->count) return UNKNOWN;
    *gpu = &machine->gpus[number - 1];
    while (is_named((*gpu)->hangs, symbol)) {
        usleep(LOOK_AGAIN_US);
        if (!read_machine(machine) || number > machine->count) return UNKNOWN;
    }
    return asked_error((*gpu)->errors, symbol);
}

#define CARD_CALL(...)                                                                                                 \
    Machine machine;                                                                                                   \
    Gpu *gpu;                                                                                                          \
    int error = card_call(&machine, handle, __func__, &gpu);                                                           \
    if (error) return error;

#define SYSTEM_CALL(...)                                                                                               \
    Machine machine;                                                                                                   \
    int error = system_call(&machine, __func__);                                                                       \
    if (error) return error;

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    SYSTEM_CALL()
    return SUCCESS;
}

int nvmlInit_v2(void) {
    SYSTEM_CALL()
    return SUCCESS;
}

int nvmlShutdown(void) {
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "The operation was successful";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    SYSTEM_CALL()
    copy_text(version, length, machine.driver_version);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    SYSTEM_CALL()
    *count = machine.count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **result) {
    SYSTEM_CALL()
    if (index >= machine.count) return INVALID_ARGUMENT;
    *result = (void *)(uintptr_t)(index + 1);
    return asked_error(machine.gpus[index].errors, __func__);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **result) {
    SYSTEM_CALL()
    for (unsigned index = 0; index < machine.count; index++) {
        if (strcmp(machine.gpus[index].uuid, uuid)) continue;
        *result = (void *)(uintptr_t)(index + 1);
        return asked_error(machine.gpus[index].errors, __func__);
    }
    return NOT_FOUND;
}

int nvmlDeviceGetIndex(void *handle, unsigned *index) {
    CARD_CALL()
    *index = (unsigned)(uintptr_t)handle - 1;
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) {
    CARD_CALL()
    copy_text(uuid, length, gpu->uuid);
    return SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
    CARD_CALL()
    copy_text(name, length, gpu->name);
    return SUCCESS;
}

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} PciInfo;

int nvmlDeviceGetPciInfo_v3(void *handle, PciInfo *info) {
    CARD_CALL()
    memset(info, 0, sizeof *info);
    info->domain = gpu->domain;
    info->bus = gpu->bus;
    info->device = gpu->device;
    snprintf(info->bus_id_legacy, sizeof info->bus_id_legacy, "%04X:%02X:%02X.0", gpu->domain & 0xffff,
             gpu->bus & 0xff, gpu->device & 0xff);
    snprintf(info->bus_id, sizeof info->bus_id, "%08X:%02X:%02X.0", gpu->domain, gpu->bus & 0xff, gpu->device & 0xff);
    return SUCCESS;
}

int nvmlDeviceGetArchitecture(void *handle, unsigned *architecture) {
    CARD_CALL()
    *architecture = gpu->architecture;
    return SUCCESS;
}

typedef struct {
    unsigned long long total, free, used;
} Memory;

int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    CARD_CALL()
    memory->total = gpu->memory_total_bytes;
    memory->used = gpu->memory_used_bytes;
    memory->free = gpu->memory_total_bytes - gpu->memory_used_bytes;
    return SUCCESS;
}

int nvmlDeviceGetMaxClockInfo(void *handle, unsigned type, unsigned *clock_mhz) {
    CARD_CALL()
    if (type != 3) return INVALID_ARGUMENT; /* NVML_CLOCK_VIDEO */
    *clock_mhz = gpu->video_clock_mhz;
    return SUCCESS;
}

int nvmlDeviceGetEncoderUtilization(void *handle, unsigned *percent, unsigned *period_us) {
    CARD_CALL()
    *percent = gpu->encoder_utilization;
    *period_us = 167000;
    return SUCCESS;
}

int nvmlDeviceGetDecoderUtilization(void *handle, unsigned *percent, unsigned *period_us) {
    CARD_CALL()
    *percent = gpu->decoder_utilization;
    *period_us = 167000;
    return SUCCESS;
}

typedef struct {
    unsigned gpu, memory;
} Utilization;

int nvmlDeviceGetUtilizationRates(void *handle, Utilization *utilization) {
    CARD_CALL()
    utilization->gpu = gpu->gpu_utilization;
    utilization->memory = 0;
    return SUCCESS;
}

/* The bindings pass 64 bits for each figure where the driver writes 32: so does this, and they start as 0. */
int nvmlDeviceGetEncoderStats(void *handle, unsigned *sessions, unsigned *fps, unsigned *latency_us) {
    CARD_CALL()
    *sessions = gpu->encoder_sessions;
    *fps = gpu->encoder_sessions ? 30 : 0;
    *latency_us = gpu->encoder_sessions ? 2000 : 0;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *celsius) {
    CARD_CALL()
    if (sensor != 0) return INVALID_ARGUMENT; /* NVML_TEMPERATURE_GPU */
    *celsius = gpu->temperature;
    return SUCCESS;
}

typedef struct {
    unsigned session, pid, vgpu, codec, width, height, fps, latency_us;
} EncoderSession;

/* Asked without room it tells how many there are, and calls that success. */
int nvmlDeviceGetEncoderSessions(void *handle, unsigned *count, EncoderSession *sessions) {
    CARD_CALL()
    unsigned found = 0, room = *count;
    for (unsigned at = 0; at < gpu->process_count; at++)
        for (unsigned number = 0; number < gpu->processes[at].encoder_sessions; number++, found++)
            if (sessions && found < room)
                sessions[found] = (EncoderSession){.session = found + 1, .pid = gpu->processes[at].pid, .fps = 30};
    *count = found;
    return sessions && found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

typedef struct {
    unsigned pid;
    unsigned long long time_us;
    unsigned compute, memory, encoder, decoder;
} UtilizationSample;

/* Time goes on by a second with each reading. A process that keeps no engine busy is in no sample. */
int nvmlDeviceGetProcessUtilization(void *handle, UtilizationSample *samples, unsigned *count,
                                    unsigned long long since_us) {
    CARD_CALL()
    unsigned found = 0, room = *count;
    for (unsigned at = 0; at < gpu->process_count; at++) {
        Process *process = &gpu->processes[at];
        if (!process->encoder_utilization && !process->decoder_utilization) continue;
        if (samples && found < room)
            samples[found] = (UtilizationSample){.pid = process->pid, .time_us = since_us + 1000000,
                                                 .encoder = process->encoder_utilization,
                                                 .decoder = process->decoder_utilization};
        found++;
    }
    *count = found;
    if (!found) return NOT_FOUND;
    return samples && found <= room ? SUCCESS : INSUFFICIENT_SIZE;
}

typedef struct {
    unsigned pid;
    unsigned long long memory_bytes;
    unsigned gpu_instance, compute_instance;
} ProcessInfo;

static int list_processes(Gpu *gpu, unsigned draws, unsigned *count, ProcessInfo *processes) {
    unsigned found = 0, room = *count;
    for (unsigned at = 0; at < gpu->process_count; at++) {
        if (gpu->processes[at].draws != draws) continue;
        if (processes && found < room)
            processes[found] = (ProcessInfo){.pid = gpu->processes[at].pid,
                                             .memory_bytes = gpu->processes[at].memory_bytes};
        found++;
    }
    *count = found;
    return found > (processes ? room : 0) ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, ProcessInfo *processes) {
    CARD_CALL()
    return list_processes(gpu, 0, count, processes);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, ProcessInfo *processes) {
    CARD_CALL()
    return list_processes(gpu, 1, count, processes);
}

typedef struct {
    unsigned version, sensor;
    int celsius;
} Temperature;

int nvmlDeviceGetTemperatureV(void *handle, Temperature *temperature) {
    CARD_CALL()
    temperature->celsius = (int)gpu->temperature;
    return SUCCESS;
}

typedef struct {
    unsigned field, scope;
    int64_t timestamp, latency_us;
    unsigned value_type;
    int result;
    union {
        double real;
        unsigned number;
        unsigned long long wide;
    } value;
} FieldValue;

int nvmlDeviceGetTemperatureThreshold(void *handle, unsigned kind, unsigned *celsius) {
    CARD_CALL()
    if (kind > 1) return NOT_SUPPORTED;
    *celsius = kind ? gpu->slowdown_temperature : gpu->shutdown_temperature;
    return *celsius ? SUCCESS : NOT_SUPPORTED;
}

/* Of all memory together: only uncorrected errors since the driver was loaded are told. */
int nvmlDeviceGetTotalEccErrors(void *handle, unsigned type, unsigned counter, unsigned long long *count) {
    CARD_CALL()
    if (type != 1 || counter != 0) return NOT_SUPPORTED;
    *count = gpu->uncorrected_errors;
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(void *handle, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
    CARD_CALL()
    if (gpu->architecture < AMPERE) return NOT_SUPPORTED;
    *corrected = 0;
    *uncorrected = gpu->remap_pending;
    *pending = gpu->remap_pending;
    *failed = gpu->remap_failed;
    return SUCCESS;
}

int nvmlDeviceGetRetiredPagesPendingStatus(void *handle, unsigned *pending) {
    CARD_CALL()
    if (gpu->architecture >= AMPERE) return NOT_SUPPORTED;
    *pending = gpu->retired_pending;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons) {
    CARD_CALL()
    *reasons = gpu->clock_reasons;
    return SUCCESS;
}

/* The cards that are registered with a set of events, by index, and up to which number each was told. */
typedef struct {
    unsigned long long types[MOST_GPUS];
    unsigned told[MOST_GPUS];
} EventSet;

typedef struct {
    void *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} EventData;

int nvmlEventSetCreate(EventSet **set) {
    SYSTEM_CALL()
    *set = calloc(1, sizeof **set);
    return *set ? SUCCESS : UNKNOWN;
}

int nvmlEventSetFree(EventSet *set) {
    free(set);
    return SUCCESS;
}

int nvmlDeviceGetSupportedEventTypes(void *handle, unsigned long long *types) {
    CARD_CALL()
    *types = gpu->supported_events;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(void *handle, unsigned long long types, EventSet *set) {
    CARD_CALL()
    if (types & ~gpu->supported_events) return NOT_SUPPORTED;
    unsigned index = (unsigned)(uintptr_t)handle - 1;
    set->types[index] = types;
    set->told[index] = gpu->event_count ? gpu->events[gpu->event_count - 1].number : 0;
    return SUCCESS;
}

/* Finds the next event of a set; TIMEOUT when there is none now. A card that is lost is told once its events are. */
static int next_event(Machine *machine, EventSet *set, EventData *data) {
    for (unsigned index = 0; index < machine->count; index++) {
        Gpu *gpu = &machine->gpus[index];
        if (!set->types[index]) continue;
        for (unsigned at = 0; at < gpu->event_count; at++) {
            Event *event = &gpu->events[at];
            if (event->number <= set->told[index]) continue;
            set->told[index] = event->number;
            if (!(event->type & set->types[index])) continue;
            *data = (EventData){.device = (void *)(uintptr_t)(index + 1), .type = event->type, .data = event->data,
                                .gpu_instance = NO_INSTANCE, .compute_instance = NO_INSTANCE};
            return SUCCESS;
        }
        if (asked_error(gpu->errors, "nvmlEventSetWait_v2") == GPU_IS_LOST) return GPU_IS_LOST;
    }
    return TIMEOUT;
}

int nvmlEventSetWait_v2(EventSet *set, EventData *data, unsigned timeout_ms) {
    for (unsigned waited_us = 0;; waited_us += LOOK_AGAIN_US) {
        SYSTEM_CALL()
        int found = next_event(&machine, set, data);
        if (found != TIMEOUT || waited_us >= timeout_ms * 1000) return found;
        usleep(LOOK_AGAIN_US);
    }
}

/*
 * Knows the recovery action alone. The error of one field travels in its own result, as with the real library: a field
 * that is newer than the driver is an invalid argument.
 */
int nvmlDeviceGetFieldValues(void *handle, int count, FieldValue *values) {
    CARD_CALL()
    for (int at = 0; at < count; at++) {
        values[at].value.wide = 0;
        values[at].value_type = 1;
        values[at].value.number = gpu->recovery_action;
        if (values[at].field != RECOVERY_ACTION) values[at].result = NOT_SUPPORTED;
        else if (atoi(machine.driver_version) < RECOVERY_ACTION_DRIVER) values[at].result = INVALID_ARGUMENT;
        else values[at].result = asked_error(gpu->errors, "recovery_action");
    }
    return SUCCESS;
}
