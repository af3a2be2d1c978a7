"""The messages of Mesos' v1 APIs, as far as schedulers and operators may send them.

One line per message: ``Name: field kind, …``; ``!`` after a field marks it required, ``*`` repeated. The order
is that of ``mesos/v1/mesos.proto``, ``scheduler.proto`` and ``master.proto`` (Mesos 1.12), in which missing
fields are reported. Messages that the master only passes on or does not look into are of kind ``any``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_MESSAGES = """
Call: framework_id ID, type CallType, subscribe Subscribe, accept Accept, decline Decline,
    accept_inverse_offers InverseOffers, decline_inverse_offers InverseOffers, revive Roles, kill Kill,
    shutdown Shutdown, acknowledge Acknowledge, acknowledge_operation_status AcknowledgeOperation,
    reconcile Reconcile, reconcile_operations ReconcileOperations, message Message, request Request,
    suppress Roles, update_framework UpdateFramework
ID: value! string
Subscribe: framework_info! FrameworkInfo, suppressed_roles* string, offer_constraints any
Accept: offer_ids* ID, operations* Operation, filters Filters
Decline: offer_ids* ID, filters Filters
InverseOffers: inverse_offer_ids* ID, filters Filters
Roles: roles* string
Kill: task_id! ID, agent_id ID, kill_policy KillPolicy
Shutdown: executor_id! ID, agent_id! ID
Acknowledge: agent_id! ID, task_id! ID, uuid! bytes
AcknowledgeOperation: agent_id ID, resource_provider_id ID, uuid! bytes, operation_id! ID
Reconcile: tasks* ReconcileTask
ReconcileTask: task_id! ID, agent_id ID
ReconcileOperations: operations* any
Message: agent_id! ID, executor_id! ID, data! bytes
Request: requests* any
UpdateFramework: framework_info! FrameworkInfo, suppressed_roles* string, offer_constraints any
FrameworkInfo: user! string, name! string, id ID, failover_timeout double, checkpoint bool, role string,
    roles* string, hostname string, principal string, webui_url string, capabilities* Capability,
    labels Labels, offer_filters any
Capability: type CapabilityType
Labels: labels* Label
Label: key! string, value string
Filters: refuse_seconds double
KillPolicy: grace_period Duration
Duration: nanoseconds! int
Operation: type OperationType, id ID, launch Launch, launch_group LaunchGroup, reserve any, unreserve any,
    create any, destroy any, grow_volume any, shrink_volume any, create_disk any, destroy_disk any
Launch: task_infos* TaskInfo
LaunchGroup: executor! ExecutorInfo, task_group! TaskGroup
TaskGroup: tasks* TaskInfo
ExecutorInfo: type ExecutorType, executor_id! ID, framework_id ID, command CommandInfo,
    container ContainerInfo, resources* Resource, name string, source string, data bytes, labels Labels
TaskInfo: name! string, task_id! ID, agent_id! ID, resources* Resource, limits any, executor ExecutorInfo,
    command CommandInfo, container ContainerInfo, health_check HealthCheck, check Check,
    kill_policy KillPolicy, data bytes, labels Labels, discovery Discovery, max_completion_time Duration
Resource: provider_id ID, name! string, type! ValueType, scalar Scalar, ranges Ranges, set Set, role string,
    allocation_info AllocationInfo, reservation any, reservations* Reservation, disk any, revocable any,
    shared any
Scalar: value! double
Ranges: range* Range
Range: begin! int, end! int
Set: item* string
AllocationInfo: role string
Reservation: type any, role string, principal string, labels Labels
CommandInfo: uris* URI, environment Environment, shell bool, value string, arguments* string, user string
URI: value! string, executable bool, extract bool, cache bool, output_file string
Environment: variables* Variable
Variable: name! string, type VariableType, value string, secret any
ContainerInfo: type! ContainerType, volumes* Volume, hostname string, docker Docker, mesos any,
    network_infos* NetworkInfo, linux_info any, rlimit_info any, tty_info any
Volume: mode! VolumeMode, container_path! string, host_path string, image any, source VolumeSource
VolumeSource: type string, docker_volume DockerVolume, host_path any, sandbox_path any, secret any
DockerVolume: driver string, name! string, driver_options any
NetworkInfo: ip_addresses any, name string, groups any, labels any, port_mappings any
Docker: image! string, network DockerNetwork, port_mappings* PortMapping, privileged bool,
    parameters* Parameter, force_pull_image bool, volume_driver string
PortMapping: host_port! int, container_port! int, protocol string
Parameter: key! string, value! string
HealthCheck: delay_seconds double, interval_seconds double, timeout_seconds double,
    consecutive_failures int, grace_period_seconds double, type HealthCheckType, command CommandInfo,
    http HTTPHealthCheck, tcp TCP
HTTPHealthCheck: protocol any, scheme string, port! int, path string, statuses* int
Check: type CheckType, command CheckCommand, http CheckHTTP, tcp TCP, delay_seconds double,
    interval_seconds double, timeout_seconds double
CheckCommand: command! CommandInfo
CheckHTTP: port! int, path string
TCP: protocol any, port! int
Discovery: visibility! Visibility, name string, environment string, location string, version string,
    ports Ports, labels Labels
Ports: ports* Port
Port: number! int, name string, protocol string, visibility Visibility, labels Labels
OperatorCall: type OperatorCallType, get_metrics GetMetrics, set_logging_level any, list_files Path,
    read_file ReadFile, update_maintenance_schedule UpdateSchedule, start_maintenance Machines,
    stop_maintenance Machines, drain_agent DrainAgent, deactivate_agent AgentCall,
    reactivate_agent AgentCall, mark_agent_gone AgentCall, teardown TeardownCall
GetMetrics: timeout Duration
Path: path! string
ReadFile: path! string, offset! int, length int
UpdateSchedule: schedule! Schedule
Schedule: windows* Window
Window: machine_ids* MachineID, unavailability! Unavailability
Unavailability: start! Duration, duration Duration
Machines: machines* MachineID
MachineID: hostname string, ip string
DrainAgent: agent_id! ID, max_grace_period AnyDuration, mark_gone bool
AnyDuration: nanoseconds int, seconds double
AgentCall: agent_id! ID
TeardownCall: framework_id! ID
"""

_ENUMS = """
CallType: UNKNOWN SUBSCRIBE TEARDOWN ACCEPT DECLINE ACCEPT_INVERSE_OFFERS DECLINE_INVERSE_OFFERS REVIVE
    KILL SHUTDOWN ACKNOWLEDGE ACKNOWLEDGE_OPERATION_STATUS RECONCILE RECONCILE_OPERATIONS MESSAGE REQUEST
    SUPPRESS UPDATE_FRAMEWORK
OperationType: UNKNOWN LAUNCH LAUNCH_GROUP RESERVE UNRESERVE CREATE DESTROY GROW_VOLUME SHRINK_VOLUME
    CREATE_DISK DESTROY_DISK
CapabilityType: UNKNOWN REVOCABLE_RESOURCES TASK_KILLING_STATE GPU_RESOURCES SHARED_RESOURCES
    PARTITION_AWARE MULTI_ROLE RESERVATION_REFINEMENT REGION_AWARE
ValueType: SCALAR RANGES SET TEXT
ContainerType: DOCKER MESOS
DockerNetwork: HOST BRIDGE NONE USER
VolumeMode: RW RO
ExecutorType: UNKNOWN DEFAULT CUSTOM
VariableType: UNKNOWN VALUE SECRET
HealthCheckType: UNKNOWN COMMAND HTTP TCP
CheckType: UNKNOWN COMMAND HTTP TCP
Visibility: FRAMEWORK CLUSTER EXTERNAL
OperatorCallType: GET_HEALTH GET_FLAGS GET_VERSION GET_METRICS GET_LOGGING_LEVEL SET_LOGGING_LEVEL
    LIST_FILES READ_FILE GET_STATE GET_AGENTS GET_FRAMEWORKS GET_EXECUTORS GET_OPERATIONS GET_TASKS
    GET_ROLES GET_WEIGHTS UPDATE_WEIGHTS GET_MASTER SUBSCRIBE RESERVE_RESOURCES UNRESERVE_RESOURCES
    CREATE_VOLUMES DESTROY_VOLUMES GROW_VOLUME SHRINK_VOLUME GET_MAINTENANCE_STATUS
    GET_MAINTENANCE_SCHEDULE UPDATE_MAINTENANCE_SCHEDULE START_MAINTENANCE STOP_MAINTENANCE GET_QUOTA
    UPDATE_QUOTA SET_QUOTA REMOVE_QUOTA TEARDOWN MARK_AGENT_GONE DRAIN_AGENT DEACTIVATE_AGENT
    REACTIVATE_AGENT GET_AGENT GET_CONTAINERS
"""

PRIMITIVES = frozenset({"string", "double", "int", "bool", "bytes", "any"})


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    name: str
    kind: str
    """One of :data:`PRIMITIVES`, or a key of :data:`ENUMS` or :data:`MESSAGES`."""
    required: bool
    repeated: bool


def _definitions(text: str) -> dict[str, str]:
    """Split ``Name: body`` entries; a continued line is indented."""
    joined = re.sub(r"\n\s+", " ", text.strip())
    return dict(line.split(": ", 1) for line in joined.splitlines())


def _field(text: str) -> Field:
    name, kind = text.split()
    return Field(name.rstrip("!*"), kind, name.endswith("!"), name.endswith("*"))


ENUMS: Mapping[str, frozenset[str]] = MappingProxyType(
    {name: frozenset(body.split()) for name, body in _definitions(_ENUMS).items()}
)
"""Names of each enumeration."""

MESSAGES: Mapping[str, Mapping[str, Field]] = MappingProxyType(
    {
        name: {field.name: field for field in map(_field, body.split(", "))}
        for name, body in _definitions(_MESSAGES).items()
    }
)
"""Fields of each message, in the order of their definition."""
