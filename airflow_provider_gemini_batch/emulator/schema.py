"""What a request may hold: the message tables of both services, and the check of a parsed JSON value against them.

The check is as strict as a proto3 JSON parser: a member that the message does not have is an error at every depth,
and so is a value of the wrong JSON type. Names are accepted in lowerCamel and in snake_case. Source of the names:
the REST reference of ``GenerateContentRequest`` and ``EmbedContentRequest``, and the official SDK's converters.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

Message = dict[str, Any]

#: Kinds of values besides nested messages (a dict), lists (a one-element list) and maps (``("map", kind)``).
STRING, NUMBER, BOOL, ENUM, ANY, STRUCT = "string", "number", "bool", "enum", "any", "struct"


#: Enumerations whose values are known; the others take any name.
TASK_TYPE = frozenset(
    {
        "TASK_TYPE_UNSPECIFIED",
        "RETRIEVAL_QUERY",
        "RETRIEVAL_DOCUMENT",
        "SEMANTIC_SIMILARITY",
        "CLASSIFICATION",
        "CLUSTERING",
        "QUESTION_ANSWERING",
        "FACT_VERIFICATION",
        "CODE_RETRIEVAL_QUERY",
    }
)
_TYPES = {"TYPE_UNSPECIFIED", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"}
#: Lower-case type names pass too: Google's own samples write them.
SCHEMA_TYPE = frozenset(_TYPES | {name.lower() for name in _TYPES})
THRESHOLD = frozenset(
    {
        "HARM_BLOCK_THRESHOLD_UNSPECIFIED",
        "BLOCK_LOW_AND_ABOVE",
        "BLOCK_MEDIUM_AND_ABOVE",
        "BLOCK_ONLY_HIGH",
        "BLOCK_NONE",
        "OFF",
    }
)
CALLING_MODE = frozenset({"MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"})


class Complaint(Exception):
    """A member that is wrong: its name (for its column in a line), and what is wrong with it."""

    def __init__(self, name: str, text: str, *, unknown: bool = False, place: str = "") -> None:
        super().__init__(text)
        self.name = name
        self.text = text
        self.unknown = unknown
        self.place = place


def _strings(names: str) -> Message:
    return dict.fromkeys(names.split(), STRING)


_SCHEMA: Message = {
    **_strings("format title description pattern"),
    "type": SCHEMA_TYPE,
    "nullable": BOOL,
    "enum": [STRING],
    "required": [STRING],
    "propertyOrdering": [STRING],
    **dict.fromkeys(
        ["maxItems", "minItems", "minProperties", "maxProperties", "minLength", "maxLength", "minimum", "maximum"],
        NUMBER,
    ),
    "example": ANY,
    "default": ANY,
}
_SCHEMA.update(items=_SCHEMA, anyOf=[_SCHEMA], properties=("map", _SCHEMA))

_BLOB: Message = _strings("mimeType data displayName")
_FILE_DATA: Message = _strings("mimeType fileUri displayName")
_RESPONSE_PART: Message = {"inlineData": _BLOB, "fileData": _FILE_DATA}
_PART: Message = {
    "text": STRING,
    "inlineData": _BLOB,
    "fileData": _FILE_DATA,
    "functionCall": {"id": STRING, "name": STRING, "args": STRUCT},
    "functionResponse": {
        "id": STRING,
        "name": STRING,
        "response": STRUCT,
        "parts": [_RESPONSE_PART],
        "willContinue": BOOL,
        "scheduling": ENUM,
    },
    "executableCode": {"id": STRING, "language": ENUM, "code": STRING},
    "codeExecutionResult": {"id": STRING, "outcome": ENUM, "output": STRING},
    "toolCall": STRUCT,
    "toolResponse": STRUCT,
    "thought": BOOL,
    "thoughtSignature": STRING,
    "partMetadata": STRUCT,
    "mediaResolution": {"level": ENUM, "numTokens": NUMBER},
    "videoMetadata": {"startOffset": STRING, "endOffset": STRING, "fps": NUMBER},
}
_PART_DATA = (
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
)
_CONTENT: Message = {"role": STRING, "parts": [_PART]}

_VOICE: Message = {"prebuiltVoiceConfig": {"voiceName": STRING}, "replicatedVoiceConfig": STRUCT}
_GENERATION_CONFIG: Message = {
    "stopSequences": [STRING],
    "responseMimeType": STRING,
    "responseSchema": _SCHEMA,
    "responseJsonSchema": ANY,
    "_responseJsonSchema": ANY,
    "responseModalities": [ENUM],
    **dict.fromkeys(
        [
            "candidateCount",
            "maxOutputTokens",
            "temperature",
            "topP",
            "topK",
            "seed",
            "presencePenalty",
            "frequencyPenalty",
            "logprobs",
        ],
        NUMBER,
    ),
    "responseLogprobs": BOOL,
    "enableEnhancedCivicAnswers": BOOL,
    "speechConfig": {
        "voiceConfig": _VOICE,
        "languageCode": STRING,
        "multiSpeakerVoiceConfig": {"speakerVoiceConfigs": [{"speaker": STRING, "voiceConfig": _VOICE}]},
    },
    "thinkingConfig": {"includeThoughts": BOOL, "thinkingBudget": NUMBER, "thinkingLevel": ENUM},
    "imageConfig": {
        **_strings("aspectRatio imageSize personGeneration outputMimeType prominentPeople"),
        "outputCompressionQuality": NUMBER,
        "imageOutputOptions": STRUCT,
    },
    "mediaResolution": ENUM,
    "responseFormat": STRUCT,
    "translationConfig": STRUCT,
    "audioTranscriptionConfig": STRUCT,
}
_FUNCTION: Message = {
    **_strings("name description"),
    "parameters": _SCHEMA,
    "response": _SCHEMA,
    "parametersJsonSchema": ANY,
    "responseJsonSchema": ANY,
    "behavior": ENUM,
}
_TOOL: Message = {
    "functionDeclarations": [_FUNCTION],
    "googleSearchRetrieval": {"dynamicRetrievalConfig": {"mode": ENUM, "dynamicThreshold": NUMBER}},
    "codeExecution": {},
    "googleSearch": {
        "timeRangeFilter": {"startTime": STRING, "endTime": STRING},
        "searchTypes": STRUCT,
        "excludeDomains": [STRING],
        "blockingConfidence": ENUM,
    },
    "computerUse": STRUCT,
    "urlContext": {},
    "fileSearch": {"fileSearchStoreNames": [STRING], "topK": NUMBER, "metadataFilter": STRING},
    "googleMaps": {"enableWidget": BOOL, "authConfig": STRUCT, "groundingTypes": STRUCT},
    "mcpServers": [STRUCT],
}
_TOOL_CONFIG: Message = {
    "functionCallingConfig": {
        "mode": CALLING_MODE,
        "allowedFunctionNames": [STRING],
        "streamFunctionCallArguments": BOOL,
    },
    "retrievalConfig": {"latLng": {"latitude": NUMBER, "longitude": NUMBER}, "languageCode": STRING},
    "includeServerSideToolInvocations": BOOL,
}
GENERATE: Message = {
    "model": STRING,
    "contents": [_CONTENT],
    "systemInstruction": _CONTENT,
    "tools": [_TOOL],
    "toolConfig": _TOOL_CONFIG,
    "safetySettings": [{"category": ENUM, "threshold": THRESHOLD}],
    "generationConfig": _GENERATION_CONFIG,
    "cachedContent": STRING,
    "serviceTier": ENUM,
    "store": BOOL,
    "continuationToken": STRING,
}
_EMBED_CONFIG: Message = {
    "taskType": TASK_TYPE,
    "title": STRING,
    "outputDimensionality": NUMBER,
    "autoTruncate": BOOL,
    "documentOcr": BOOL,
    "audioTrackExtraction": BOOL,
}
EMBED: Message = {
    "model": STRING,
    "content": _CONTENT,
    "taskType": TASK_TYPE,
    "title": STRING,
    "outputDimensionality": NUMBER,
    "embedContentConfig": _EMBED_CONFIG,
}
BATCH: Message = {
    **_strings("name displayName model"),
    "inputConfig": {"fileName": STRING, "requests": {"requests": [{"request": ANY, "metadata": STRUCT}]}},
    "priority": NUMBER,
    "webhookConfig": {"uris": [STRING], "userMetadata": STRUCT},
    **_strings("createTime endTime updateTime state"),
    "output": STRUCT,
    "batchStats": STRUCT,
}
CREATE: Message = {"batch": BATCH}
VERTEX_JOB: Message = {
    **_strings("name displayName model modelVersionId createTime startTime endTime updateTime state serviceAccount"),
    "inputConfig": {
        "instancesFormat": STRING,
        "gcsSource": {"uris": ANY},
        "bigquerySource": {"inputUri": STRING},
        "vertexMultimodalDatasetSource": {"datasetName": STRING},
    },
    "outputConfig": {
        "predictionsFormat": STRING,
        "gcsDestination": {"outputUriPrefix": STRING},
        "bigqueryDestination": {"outputUri": STRING},
        "vertexMultimodalDatasetDestination": {"bigqueryDestination": {"outputUri": STRING}, "displayName": STRING},
    },
    "modelParameters": ANY,
    "labels": ("map", STRING),
    "encryptionSpec": STRUCT,
}

_BOTH: dict[int, dict[str, tuple[str, Any]]] = {}


@lru_cache(maxsize=1024)
def snake(name: str) -> str:
    """Return the snake_case spelling of a lowerCamel name."""
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda match: "_" + match.group().lower(), name)


def get(message: Any, name: str, default: Any = None) -> Any:
    """Return a member by its lowerCamel name, whichever way it is spelt."""
    if not isinstance(message, dict):
        return default
    return message[name] if name in message else message.get(snake(name), default)


def _members(message: Message) -> dict[str, tuple[str, Any]]:
    table = _BOTH.get(id(message))
    if table is None:
        table = {name: (name, kind) for name, kind in message.items()}
        table.update({snake(name): (name, kind) for name, kind in message.items()})
        _BOTH[id(message)] = table
    return table


def check(value: Any, message: Message, name: str = "", place: str = "") -> None:
    """Check a JSON object against a message; raises Complaint at the first thing that is wrong.

    :param name: the member that holds the object, for the complaint.
    :param place: dotted path of the object, for the complaint.
    """
    if not isinstance(value, dict):
        raise Complaint(name, f"unexpected character: '{_first(value)}'; expected '{{'", place=place)
    table = _members(message)
    for key, item in value.items():
        member = table.get(key)
        if member is None:
            raise Complaint(key, f"no such field: '{key}'", unknown=True, place=place)
        if item is not None:
            _check_kind(item, member[1], key, f"{place}.{key}" if place else key)
    if message is _PART and len(value) > 1:
        _check_part(value, place)


def _check_part(part: dict[str, Any], place: str) -> None:
    named = [name for name in _PART_DATA if get(part, name) is not None]
    if len(named) > 1:
        raise Complaint(snake(named[1]), f"field '{named[1]}' is already set (part of a oneof)", place=place)


def _check_kind(value: Any, kind: Any, name: str, place: str) -> None:
    if kind is STRING:
        _expect(isinstance(value, str), value, '"', name, place)
    elif isinstance(kind, dict):
        check(value, kind, name, place)
    elif isinstance(kind, list):
        _expect(isinstance(value, list), value, "[", name, place)
        for index, item in enumerate(value):
            _check_kind(item, kind[0], name, f"{place}[{index}]")
    elif isinstance(kind, tuple):
        _expect(isinstance(value, dict), value, "{", name, place)
        for key, item in value.items():
            _check_kind(item, kind[1], key, f"{place}.{key}")
    elif isinstance(kind, frozenset):
        if value not in kind:
            raise Complaint(name, f"invalid value for enum field {name}", place=place)
    elif not _scalar_fits(value, kind):
        raise Complaint(name, f"unexpected value for a field of type {kind}", place=place)


def _expect(fits: bool, value: Any, opening: str, name: str, place: str) -> None:  # noqa: FBT001 - the outcome of a look
    if not fits:
        raise Complaint(name, f"unexpected character: '{_first(value)}'; expected '{opening}'", place=place)


def _scalar_fits(value: Any, kind: str) -> bool:
    if kind == ANY:
        return True
    if kind == STRUCT:
        return isinstance(value, dict)
    if kind == BOOL:
        return isinstance(value, bool)
    if kind == ENUM:
        return isinstance(value, (str, int)) and not isinstance(value, bool)
    if isinstance(value, str):
        return re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _first(value: Any) -> str:
    if isinstance(value, dict):
        return "{"
    if isinstance(value, list):
        return "["
    if isinstance(value, str):
        return '"'
    return str(value).lower()[:1]


def conflict(request: dict[str, Any]) -> str | None:
    """Return what is wrong with a generation request whose members do not go together."""
    if get(request, "cachedContent") and any(
        get(request, name) for name in ("systemInstruction", "tools", "toolConfig")
    ):
        return (
            "CachedContent can not be used with GenerateContent request "
            "setting system_instruction, tools or tool_config"
        )
    return None


#: Vertex knows these besides; `schema.check` of its rows runs when the job reads its input.
VERTEX_GENERATE: Message = {
    **GENERATE,
    "labels": ("map", STRING),
    "safetySettings": [{"category": ENUM, "threshold": THRESHOLD, "method": ENUM}],
    "generationConfig": {
        **_GENERATION_CONFIG,
        "audioTimestamp": BOOL,
        "enableAffectiveDialog": BOOL,
        "routingConfig": STRUCT,
        "modelSelectionConfig": STRUCT,
    },
    "modelArmorConfig": STRUCT,
}
