"""What is kept of a person, and how they get rid of it.

POST /v1/consent   POST /v1/erasure
GET /v1/conversations   DELETE /v1/conversations/{id}   GET /v1/memories   DELETE /v1/memories/{id}

Who asks says who they are in the header `bb3x-user` (the `user` of their requests, percent-encoded beyond
ASCII) and proves it in `bb3x-proof` with the id of any completion or comparison that was written for them. So
a `user` is a secret between a person and the server, and has to be one that nobody guesses. Who sends none
can be taken for somebody else who said the same words; what is kept of such talk is shown to nobody.
"""

from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Header, Path
from pydantic import AfterValidator
from starlette.concurrency import run_in_threadpool

from bb3x_ray.serve.answers import (
    ERRORS,
    ConsentTaken,
    ConversationDeleted,
    ConversationList,
    ErasureTaken,
    MemoryDeleted,
    MemoryList,
)
from bb3x_ray.serve.durable import Memories, Memory
from bb3x_ray.serve.people import People
from bb3x_ray.serve.protocol import ApiError, ConsentRequest, ErasureRequest

PROOF = "bb3x-proof"
UserHeader = Annotated[
    str | None,
    Header(alias="bb3x-user", max_length=1024),
    AfterValidator(lambda user: user and unquote(user)),
]
NamedUser = Annotated[str, Header(alias="bb3x-user", min_length=1, max_length=1024), AfterValidator(unquote)]
Proof = Annotated[str, Header(alias=PROOF, max_length=250)]
CompletionId = Annotated[str, Path(max_length=250)]
Id = Annotated[str, Path(max_length=250)]


def people_routes(people: People, memories: Memories | None) -> APIRouter:
    routes = APIRouter(prefix="/v1", responses=ERRORS)

    @routes.post("/consent", response_model=ConsentTaken)
    async def consent(request: ConsentRequest) -> dict[str, Any]:
        event_id = await people.consent(request)
        return {"id": event_id, "object": "consent", "store": request.store, "scope": request.scope}

    @routes.post("/erasure", status_code=202, response_model=ErasureTaken)
    async def erasure(request: ErasureRequest) -> dict[str, Any]:
        return {"id": await people.ask_for_erasure(request), "object": "erasure", "status": "accepted"}

    @routes.get("/conversations", response_model=ConversationList)
    async def conversations(user: NamedUser, proof: Proof) -> dict[str, Any]:
        person = people.proven(proof, user, PROOF).person
        return {"object": "list", "data": await people.conversations(person)}

    @routes.delete("/conversations/{conversation_id}", status_code=202, response_model=ConversationDeleted)
    async def delete(conversation_id: Id, user: NamedUser, proof: Proof) -> dict[str, Any]:
        """Gone from every answer at once, and from the disk when the erasure is carried out."""
        await people.forget_conversation(people.proven(proof, user, PROOF), conversation_id)
        return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}

    @routes.get("/memories", response_model=MemoryList)
    async def remembered(user: NamedUser, proof: Proof) -> dict[str, Any]:
        person = people.proven(proof, user, PROOF).person
        found = await run_in_threadpool(memories.of, person) if memories else []
        return {"object": "list", "data": [_memory(memory) for memory in found]}

    @routes.delete("/memories/{memory_id}", response_model=MemoryDeleted)
    async def forget(memory_id: Id, user: NamedUser, proof: Proof) -> dict[str, Any]:
        person = people.proven(proof, user, PROOF).person
        found = await run_in_threadpool(memories.of, person) if memories else []
        if memories is None or all(memory.id != memory_id for memory in found):
            raise ApiError(404, "There is no such memory of this person.", code="memory_not_found")
        await run_in_threadpool(memories.forget, person, memory_id)
        return {"id": memory_id, "object": "memory.deleted", "deleted": True}

    return routes


def _memory(memory: Memory) -> dict[str, Any]:
    return {
        "id": memory.id,
        "text": memory.text,
        "about": memory.about,
        "created": memory.created // 1_000_000,
    }
