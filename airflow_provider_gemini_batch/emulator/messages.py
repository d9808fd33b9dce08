"""The messages of both services: which members a request may hold, and of what kind each is.

Source of the names: the REST reference of ``GenerateContentRequest`` and ``EmbedContentRequest``, and the types and
converters of the official SDK up to 3.6.1.
"""

from __future__ import annotations

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
#: What stands beside the data of a part and says how to read it.
_READING: Message = {
    "mediaResolution": {"level": ENUM, "numTokens": NUMBER},
    "mediaProcessing": ENUM,
    "videoMetadata": {"startOffset": STRING, "endOffset": STRING, "fps": NUMBER, "contentLayers": [ENUM]},
    "documentMetadata": {"startPage": NUMBER, "endPage": NUMBER, "contentLayers": [ENUM]},
    "spreadsheetMetadata": {"visibleCells": STRING, "sheetIndex": NUMBER, "contentLayers": [ENUM]},
    "audioMetadata": {"startOffset": STRING, "endOffset": STRING},
}
_RESPONSE_PART: Message = {"inlineData": _BLOB, "fileData": _FILE_DATA, **_READING}
PART: Message = {
    "text": STRING,
    "inlineData": _BLOB,
    "fileData": _FILE_DATA,
    "functionCall": {
        "id": STRING,
        "name": STRING,
        "args": STRUCT,
        "partialArgs": [
            {
                "jsonPath": STRING,
                "stringValue": STRING,
                "numberValue": NUMBER,
                "boolValue": BOOL,
                "nullValue": ANY,
                "willContinue": BOOL,
            }
        ],
        "willContinue": BOOL,
    },
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
    "toolCall": {"id": STRING, "toolType": ENUM, "args": STRUCT},
    "toolResponse": {"id": STRING, "toolType": ENUM, "response": STRUCT},
    "audioTranscription": {
        **_strings("text languageCode speakerLabel startOffset endOffset"),
        "finished": BOOL,
        "words": [_strings("word startOffset endOffset")],
    },
    "speechMetadata": _strings("speaker style"),
    "thought": BOOL,
    "thoughtSignature": STRING,
    "partMetadata": STRUCT,
    **_READING,
}
PART_DATA = (
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
)
_CONTENT: Message = {"role": STRING, "parts": [PART]}

_VOICE: Message = {
    "prebuiltVoiceConfig": {"voiceName": STRING},
    "replicatedVoiceConfig": {
        **_strings("mimeType voiceSampleAudio consentAudio"),
        "voiceConsentSignature": {"signature": STRING},
    },
    "voice": STRING,
}
_AUTH_CONFIG: Message = {
    "apiKey": STRING,
    "authType": ENUM,
    "apiKeyConfig": {**_strings("apiKeySecret apiKeyString name"), "httpElementLocation": ENUM},
    "googleServiceAccountConfig": {"serviceAccount": STRING},
    "httpBasicAuthConfig": {"credentialSecret": STRING},
    "oauthConfig": _strings("accessToken serviceAccount"),
    "oidcConfig": _strings("idToken serviceAccount"),
}
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
        "imageOutputOptions": {"mimeType": STRING, "compressionQuality": NUMBER},
    },
    "mediaResolution": ENUM,
    "responseFormat": {
        "audio": {**_strings("mimeType"), "delivery": ENUM, "bitRate": NUMBER, "sampleRate": NUMBER},
        "image": {**_strings("mimeType aspectRatio imageSize"), "delivery": ENUM},
        "text": {"mimeType": STRING, "jsonSchema": ANY},
        "video": {**_strings("aspectRatio duration gcsUri resolution"), "delivery": ENUM},
    },
    "translationConfig": {"echoTargetLanguage": BOOL, "targetLanguageCode": STRING},
    "audioTranscriptionConfig": {
        "languageCodes": [STRING],
        "languageAuto": {},
        "languageHints": {"languageCodes": [STRING]},
        "customVocabulary": [STRING],
        "adaptationPhrases": [STRING],
        "wordTimestamp": BOOL,
        "diarization": BOOL,
        "mode": ENUM,
        "sourceText": STRING,
    },
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
        "searchTypes": {"webSearch": {}, "imageSearch": {}},
        "excludeDomains": [STRING],
        "blockingConfidence": ENUM,
    },
    "computerUse": {
        "environment": ENUM,
        "excludedPredefinedFunctions": [STRING],
        "enablePromptInjectionDetection": BOOL,
        "disabledSafetyPolicies": [ENUM],
    },
    "urlContext": {},
    "fileSearch": {"fileSearchStoreNames": [STRING], "topK": NUMBER, "metadataFilter": STRING},
    "googleMaps": {
        "enableWidget": BOOL,
        "authConfig": _AUTH_CONFIG,
        "groundingTypes": {"places": {}, "routing": {}},
    },
    "mcpServers": [
        {
            "name": STRING,
            "streamableHttpTransport": {
                **_strings("url timeout sseReadTimeout"),
                "headers": ("map", STRING),
                "terminateOnClose": BOOL,
            },
        }
    ],
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
    "labels": ("map", STRING),
}
_EMBED_CONFIG: Message = {
    "taskType": TASK_TYPE,
    "title": STRING,
    "outputDimensionality": NUMBER,
    "mimeType": STRING,
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

_VERTEX_TOOL: Message = {
    **_TOOL,
    "retrieval": {
        "disableAttribution": BOOL,
        "externalApi": {
            "apiAuth": {"apiKeyConfig": _strings("apiKeySecretVersion apiKeyString")},
            "apiSpec": ENUM,
            "authConfig": _AUTH_CONFIG,
            "elasticSearchParams": {**_strings("index searchTemplate"), "numHits": NUMBER},
            "endpoint": STRING,
            "simpleSearchParams": {},
        },
        "vertexAiSearch": {
            **_strings("datastore engine filter"),
            "dataStoreSpecs": [_strings("dataStore filter")],
            "maxResults": NUMBER,
        },
        "vertexRagStore": {
            "ragCorpora": [STRING],
            "ragResources": [{"ragCorpus": STRING, "ragFileIds": [STRING]}],
            "ragRetrievalConfig": {
                "filter": {
                    "metadataFilter": STRING,
                    "vectorDistanceThreshold": NUMBER,
                    "vectorSimilarityThreshold": NUMBER,
                },
                "hybridSearch": {"alpha": NUMBER},
                "ranking": {"llmRanker": {"modelName": STRING}, "rankService": {"modelName": STRING}},
                "topK": NUMBER,
            },
            "similarityTopK": NUMBER,
            "storeContext": BOOL,
            "vectorDistanceThreshold": NUMBER,
        },
    },
    "enterpriseWebSearch": {"blockingConfidence": ENUM, "excludeDomains": [STRING]},
    "parallelAiSearch": {
        "apiKey": STRING,
        "customConfigs": STRUCT,
        "enableDataRetention": BOOL,
        "enableZeroDataRetention": BOOL,
    },
    "exaAiSearch": {"apiKey": STRING, "customConfigs": STRUCT},
}
#: Vertex knows these besides; `schema.check` of its rows runs when the job reads its input.
VERTEX_GENERATE: Message = {
    **GENERATE,
    "safetySettings": [{"category": ENUM, "threshold": THRESHOLD, "method": ENUM}],
    "generationConfig": {
        **_GENERATION_CONFIG,
        "audioTimestamp": BOOL,
        "enableAffectiveDialog": BOOL,
        "routingConfig": {
            "autoMode": {"modelRoutingPreference": ENUM},
            "manualMode": {"modelName": STRING},
        },
        "modelSelectionConfig": {"featureSelectionPreference": ENUM},
    },
    "tools": [_VERTEX_TOOL],
    "automaticContinuation": BOOL,
    "generationOutputConfig": {"outputUriPrefix": STRING},
    "modelArmorConfig": _strings("promptTemplateName responseTemplateName"),
}
